"""Update formulas by family; `runtime.ops.update` has the table of them."""
