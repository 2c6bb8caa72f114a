"""Symbol graphs and what becomes of them: ir, infer, gradient, passes, plan."""
