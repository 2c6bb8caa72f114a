"""Tools for tests of the asynchronous parts."""
