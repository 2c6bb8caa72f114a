"""Formats of other libraries; each file here is a leaf."""
