"""Passes between the builder's rows and the finished plan."""
