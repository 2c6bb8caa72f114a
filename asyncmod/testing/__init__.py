"""Contract suites: run your own iterator through what asyncmod's have to pass."""

from asyncmod.testing.iterators import check_iterator

__all__ = ["check_iterator"]
