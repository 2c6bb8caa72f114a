"""The buckets of a BucketingModule that are compiled: how many, which, how large.

Next: `asyncmod.module.module`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from asyncmod.errors import ArgumentError, ArgumentTypeError
from asyncmod.io.batch import DataDesc
from asyncmod.module.batches import Array
from asyncmod.module.descriptions import with_shape
from asyncmod.module.module import Module
from asyncmod.module.step import Step


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
                await other.module._retire()
        return [other.key for other in surplus]

    async def clear(self) -> None:
        """Free all but the default bucket, which is the current one then."""
        others = [bucket for bucket in self if bucket is not self.default]
        self._live = {self.default.key: self.default}
        self.current = self.default
        for bucket in others:
            await bucket.module._retire()

    async def aclose(self) -> None:
        """Free all; cancelling ends the waiting only."""
        async with trio.open_nursery() as nursery:
            for bucket in self:
                nursery.start_soon(bucket.module._free)

    def report(self) -> list[BucketReport]:
        """What is known of each."""
        return [
            BucketReport(
                b.key,
                tuple(b.module.data_shapes),
                b.module._bound("bucket_report").nbytes,
            )
            for b in self
        ]


@dataclass
class BucketStep:
    """A step of one bucket.

    Attributes:
        step: The step.
        module: The bucket's module, which knows the names of its outputs.
        on_withdrawn: Called if the step did not take effect.
    """

    step: Step
    module: Module
    on_withdrawn: Callable[[], None] | None = None

    @property
    def compute_seconds(self) -> float:
        return self.step.compute_seconds

    @property
    def reduce_seconds(self) -> float:
        return self.step.reduce_seconds

    async def copied(self) -> None:
        await self.step.copied()

    async def wait(self) -> None:
        await self.step.wait()

    async def outputs(self) -> list[Array]:
        return await self.step.outputs()

    async def settle(self) -> bool:
        done = await self.step.settle()
        if not done and self.on_withdrawn is not None:
            self.on_withdrawn()
        return done


def describe(
    batch: Any, module: Module, default: Module
) -> tuple[Sequence[DataDesc], Sequence[DataDesc]]:
    """Descriptions of the inputs of a new bucket, from its first batch.

    They are the batch's own if it has some; else its arrays, in the order of the
    default bucket's inputs. Labels that it lacks follow from the graph, so that the
    bucket can be trained later.
    """
    executors = default._bound("forward")
    data_like, labels_like = executors.first.data, executors.first.labels
    data = _described(
        batch.data, getattr(batch, "provide_data", None), module.data_names, data_like
    )
    labels = _described(
        getattr(batch, "label", None) or (),
        getattr(batch, "provide_label", None),
        module.label_names,
        labels_like,
    )
    return data, labels or infer_labels(module, data, default)


def infer_labels(
    module: Module, data: Sequence[Any], default: Module
) -> list[DataDesc]:
    """Descriptions of labels that follow from the data; none if they do not.

    None either if the default bucket is bound without labels.
    """
    like = default._bound("forward").first.labels
    symbol = module.symbol
    known = {name: shape for name, shape, *_ in data}
    shapes, _, _ = symbol.infer_shape_partial(**known)
    by_name = dict(zip(symbol.list_arguments(), shapes or (), strict=False))
    names = [name for name in module.label_names if name in by_name]
    if len(names) != len(like) or not all(by_name[name] for name in names):
        return []
    return [
        DataDesc(name, by_name[name], other.dtype, other.layout)
        for name, other in zip(names, like, strict=True)
    ]


def _described(
    arrays: Sequence[Any],
    provided: Any,
    names: Sequence[str],
    like: Sequence[DataDesc],
) -> list[Any]:
    if provided:
        return list(provided)
    if len(like) != len(names):
        like = [DataDesc(name, ()) for name in names]
    by_name = {description.name: description for description in like}
    if sorted(by_name) == sorted(names):
        names = [description.name for description in like]
    described = []
    for name, other, array in zip(names, like, arrays, strict=False):
        form = with_shape(by_name.get(name, other), np.shape(array))
        described.append(DataDesc(name, form.shape, form.dtype, form.layout))
    return described
