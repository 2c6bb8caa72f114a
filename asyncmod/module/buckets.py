"""The buckets of a BucketingModule that are compiled: how many, which, how large.

Next: `asyncmod.module.bucket_shapes` for the shapes of a new one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.io.batch import DataDesc
from asyncmod.module.module import Module


@dataclass(eq=False)
class Bucket:
    """One bucket.

    Attributes:
        key: Its key.
        module: Its module, bound unless it is the default bucket's.
        users: Calls that are about to use it.
    """

    key: Hashable
    module: Module
    users: int = 0

    @contextmanager
    def in_use(self) -> Iterator[Bucket]:
        """Keep the bucket from being freed."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1


@dataclass(frozen=True)
class BucketReport:
    """What is known of a compiled bucket.

    Attributes:
        key: Its key.
        data_shapes: What its data was bound with, or the latest shapes.
        nbytes: Bytes that it holds for itself on all devices: inputs, outputs and
            intermediate values, not the parameters that all buckets share.
    """

    key: Hashable
    data_shapes: tuple[DataDesc, ...]
    nbytes: int


class Buckets:
    """The compiled buckets, the least recently used first.

    Attributes:
        default: The one whose memory all share; always there.
        current: The one of the last forward; never freed.
    """

    def __init__(self, default: Bucket, limit: int) -> None:
        if limit < 3:
            raise ArgumentError(
                f"`max_buckets` (={limit}) must be at least 3: the default bucket, the "
                "current one and the next"
            )
        self.default = default
        self.current = default
        self._limit = limit
        self._live: dict[Hashable, Bucket] = {}
        self.use(default.key)
        self._live[default.key] = default

    def __iter__(self) -> Iterator[Bucket]:
        return iter(tuple(self._live.values()))

    def use(self, key: Hashable) -> Bucket | None:
        """The bucket of this key, which is the latest used one now; None if not here.

        Raises:
            ArgumentTypeError: the key cannot be hashed.
        """
        try:
            bucket = self._live.pop(key, None)
        except TypeError:
            raise ArgumentTypeError(
                f"the bucket key {key!r} is a {type(key).__name__}, which cannot be "
                "hashed: use an integer, a string or a tuple of these"
            ) from None
        if bucket is not None:
            self._live[key] = bucket
        return bucket

    async def add(self, bucket: Bucket) -> list[Hashable]:
        """Add a bucket; the keys of those that were freed for it."""
        self._live[bucket.key] = bucket
        kept = (bucket, self.default, self.current)
        unused = [b for b in self if b not in kept and not b.users]
        surplus = unused[: max(len(self._live) - self._limit, 0)]
        for other in surplus:
            del self._live[other.key]
        with bucket.in_use(), trio.CancelScope(shield=True):
            for other in surplus:
                await other.module.core.retire()
        return [other.key for other in surplus]

    async def clear(self) -> None:
        """Free all but the default bucket, which is the current one then."""
        others = [bucket for bucket in self if bucket is not self.default]
        self._live = {self.default.key: self.default}
        self.current = self.default
        for bucket in others:
            await bucket.module.core.retire()

    async def aclose(self) -> None:
        """Free all; cancelling ends the waiting only."""
        async with trio.open_nursery() as nursery:
            for bucket in self:
                nursery.start_soon(bucket.module.core.free)

    def report(self) -> list[BucketReport]:
        """What is known of each."""
        return [
            BucketReport(
                b.key,
                tuple(b.module.data_shapes),
                b.module.core.need_executors("bucket_report").nbytes,
            )
            for b in self
        ]
