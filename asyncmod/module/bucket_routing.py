"""From a batch to its bucket, which is compiled if it is new.

Next: `asyncmod.module.buckets`, then `asyncmod.module.bucket_factory`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import trio

from asyncmod.errors import ArgumentError
from asyncmod.io.slices import whole
from asyncmod.module import requirements
from asyncmod.module.bucket_factory import BucketFactory, Shapes
from asyncmod.module.bucket_shapes import describe
from asyncmod.module.buckets import Bucket, Buckets
from asyncmod.module.module import Module

if TYPE_CHECKING:
    from asyncmod.module.bucketing import BucketingModule


class BucketRouting:
    """See the module.

    Args:
        module: Whose batches come; must be bound when they do.
        buckets: Those that are compiled.
        factory: Makes the others.

    Attributes:
        changing: Held while buckets are bound.
    """

    def __init__(
        self, module: BucketingModule, buckets: Buckets, factory: BucketFactory
    ) -> None:
        self.changing = trio.Lock()
        self._module = module
        self._buckets = buckets
        self._factory = factory

    async def whole(self, batch: Any) -> Any:
        """The batch, joined if it comes as one batch per context."""
        first = self._buckets.default.module.core.need_executors("forward").first
        return await whole(batch, first.data, first.labels)

    async def of(self, batch: Any) -> Bucket:
        """The bucket of a batch."""
        if not hasattr(batch, "bucket_key"):
            raise ArgumentError(
                f"a batch for a BucketingModule needs `bucket_key`, and this "
                f"{type(batch).__name__} has none: give DataBatch(..., bucket_key=...)"
            )
        default = self._buckets.default.module

        def shapes(module: Module) -> tuple[Any, Any]:
            return describe(batch, module, default)

        return await self.live(batch.bucket_key, shapes)

    async def live(self, key: Hashable, shapes: Shapes) -> Bucket:
        """A bucket that is compiled, and from now on the latest used one."""
        bucket = self._buckets.use(key)
        if bucket is not None:
            return bucket
        async with self.changing:
            bucket = self._buckets.use(key)
            if bucket is not None:
                return bucket
            self._module.scope.check_open("switch_bucket")
            requirements.need_bound(self._module, "switch_bucket")
            default = self._buckets.default.module
            bucket = Bucket(key, await self._factory.bound(key, default, shapes))
            freed = await self._buckets.add(bucket)
            if freed:
                listed = ", ".join(repr(key) for key in freed)
                self._module.logger.info(
                    "freed the buckets %s, unused for longest", listed
                )
            return bucket
