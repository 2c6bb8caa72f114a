"""Suites that every device is run through."""
