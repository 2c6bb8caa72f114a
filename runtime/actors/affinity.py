"""Cores for device threads: each keeps to its share, so that two never wait for one.

A scheduler that wakes two threads at once tends to put both on the core of the waker,
and moves one away only after as long as a whole step takes. The shares end with the
threads; `ASYNCMOD_AFFINITY=0` leaves everything to the scheduler.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress


def cores() -> list[int]:
    """Those that the calling thread may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(whole: Sequence[int], count: int) -> list[set[int]]:
    """Cut cores into `count` neighboring shares; all for all if there are few."""
    if count > len(whole):
        return [set(whole)] * count
    cuts = [len(whole) * i // count for i in range(count + 1)]
    return [set(whole[a:b]) for a, b in itertools.pairwise(cuts)]


def spread(thread_ids: Sequence[int]) -> None:
    """Give each thread its share of the cores that the calling thread may use.

    Does nothing where the system does not offer it.

    Args:
        thread_ids: Native ids of all device threads, in the order of their start.
    """
    if os.environ.get("ASYNCMOD_AFFINITY") == "0":
        return
    if not hasattr(os, "sched_setaffinity"):
        return
    cut = shares(cores(), len(thread_ids))
    for thread_id, share in zip(thread_ids, cut, strict=True):
        # A thread may have ended, and a sandbox may forbid it: then it runs anywhere.
        with suppress(OSError):
            os.sched_setaffinity(thread_id, share)
