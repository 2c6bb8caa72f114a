"""`mx.kvstore`: named arrays that several producers add to and read from.

Module sums gradients by itself and needs no store; this one is for programs that
average or exchange arrays of their own, in MXNet's terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import trio

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    ModuleStateError,
    UnsupportedError,
)
from asyncmod.io.fairness import LARGE_COPY
from asyncmod.keyed_arrays import Array, Key, Pairs, pair_up, row_numbers
from asyncmod.module.optimizer_setup import check_kvstore
from asyncmod.nd.array import as_given
from asyncmod.optimizer import (
    Optimizer,
    OptimizerStatesError,
    Updater,
    get_updater,
    packed_file,
)
from asyncmod.trio_task import check_trio
from runtime.row_sparse import RowSparseNDArray

Keys = Key | Sequence[Key]
Values = Any  # an array, a list of arrays, or with several keys a list of those
UpdateFunction = Callable[[Key, Array, Array], object]
"""`updater(key, pushed, stored)` changes `stored` in place."""


def create(name: object = "local") -> KVStore:
    """A store in this process.

    Args:
        name: "local", "device" or another of MXNet's local stores; all are the same
            here, since arrays at the face are in the host's memory.

    Raises:
        ArgumentError: there is no store of this name.
        ArgumentTypeError: `name` is no string.
        UnsupportedError: a distributed store; the message says what will serve it.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(
            f"`name` of a store must be a string, not {type(name).__name__}"
        )
    check_kvstore(name)
    return KVStore(name)


class KVStore:
    """Arrays by key; keys are all strings or all integers.

    Calls are awaited under Trio and served one after the other, in their order; work on
    more than 1 MB runs in a thread. A call that is cancelled has either done nothing or
    all it had to do. Where `priority` is accepted, it is for MXNet's sake.
    """

    def __init__(self, name: str) -> None:
        self._type = name
        self._stored: dict[Key, Array] = {}
        self._updater: UpdateFunction | None = None
        self._serving = trio.Lock()

    @property
    def type(self) -> str:
        """The name that the store was created with."""
        return self._type

    @property
    def rank(self) -> int:
        """Number of this worker: 0, since there is only one."""
        return 0

    @property
    def num_workers(self) -> int:
        """Number of workers: 1."""
        return 1

    async def init(self, key: Keys, value: Values) -> None:
        """Store copies of first values.

        Args:
            key: A key, or a list of keys.
            value: Its array, or one array for each key.

        Raises:
            ArgumentError: a key is there already, or keys of two types are mixed.
        """
        pairs = pair_up(key, value, "value")
        names = [name for name, _ in pairs]
        self._check_keys(names)
        for name, arrays in pairs:
            if name in self._stored or names.count(name) > 1:
                raise ArgumentError(f"duplicate init of key {name}")
            if len(arrays) != 1:
                raise ArgumentError(
                    f"`value` of key {name!r} must be one array, not {len(arrays)}"
                )

        def copy() -> None:
            copies = {name: np.array(arrays[0]) for name, arrays in pairs}
            self._stored.update(copies)

        await self._serve(copy, pairs)

    async def push(self, key: Keys, value: Values, priority: int = 0) -> None:
        """Sum arrays and give the sum to the updater, or store it if there is none.

        A list of arrays is summed from its first to its last. Where an updater fails
        the value of its key stays as it was.

        Args:
            key: A key, or a list of keys.
            value: An array or a list of arrays; with several keys one of these each.
            priority: Accepted for MXNet's sake.

        Raises:
            ArgumentError: an unknown key, or an array that does not fit its value.
        """
        pairs = self._checked(key, value, "value")
        await self._serve(lambda: self._push(pairs), pairs)

    async def pull(
        self, key: Keys, out: Values, priority: int = 0, ignore_sparse: bool = True
    ) -> None:
        """Copy values into arrays.

        Args:
            key: A key, or a list of keys.
            out: An array or a list of arrays; with several keys one of these each.
            priority: Accepted for MXNet's sake.
            ignore_sparse: Pass over row-sparse `out` arrays, as MXNet does.

        Raises:
            ArgumentError: an unknown key, or an array that its value does not fit.
        """
        outs = self._checked(key, out, "out")
        await self._serve(lambda: self._pull(outs, ignore_sparse), outs)

    async def pushpull(
        self, key: Keys, value: Values, out: Values = None, priority: int = 0
    ) -> None:
        """`push`, then `pull` into `out`, or into `value` where that is None.

        As by `pull`, row-sparse arrays are passed over: `row_sparse_pull` fills them.
        """
        pairs = self._checked(key, value, "value")
        outs = self._checked(key, value if out is None else out, "out")

        def exchange() -> None:
            self._push(pairs)
            self._pull(outs, ignore_sparse=True)

        await self._serve(exchange, pairs)

    async def broadcast(
        self, key: Keys, value: Values, out: Values, priority: int = 0
    ) -> None:
        """`init`, then `pull` into `out`; cancelled, it may have done the first."""
        await self.init(key, value)
        await self.pull(key, out, priority)

    async def row_sparse_pull(
        self, key: Keys, out: Values, priority: int = 0, row_ids: Any = None
    ) -> None:
        """Copy some rows of values into arrays; their other rows become zero.

        Args:
            key: A key, or a list of keys.
            out: Arrays of the values' shapes, as for `pull`; a row-sparse one then has
                these rows, and the cost follows them.
            priority: Accepted for MXNet's sake.
            row_ids: Whole numbers in any order: one array of them for all of `out`,
                or a list with one for each.

        Raises:
            ArgumentError: as `pull`, or `row_ids` are no row numbers of the value.
        """
        outs = self._checked(key, out, "out")
        flat = [(name, array) for name, arrays in outs for array in arrays]
        rows = row_numbers(row_ids, len(flat))
        for (name, _), numbers in zip(flat, rows, strict=True):
            stored = self._stored[name]
            if stored.ndim == 0 or not _within(numbers, len(stored)):
                raise ArgumentError(
                    f"`row_ids` of key {name!r} must be row numbers of shape "
                    f"{stored.shape}, and they are {numbers}"
                )

        def copy() -> None:
            for (name, array), numbers in zip(flat, rows, strict=True):
                if isinstance(array, RowSparseNDArray):
                    array.indices = np.unique(numbers)
                    pulled = self._stored[name][array.indices]
                    array.values = pulled.astype(array.dtype, copy=False)
                    continue
                array[...] = 0
                array[numbers] = self._stored[name][numbers]

        await self._serve(copy, outs)

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Update stored values by an optimizer: what is pushed is their gradient.

        The optimizer knows the parameters by their keys.

        Raises:
            ArgumentError: it is no `mx.optimizer.Optimizer`.
        """
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                "`optimizer` must be an mx.optimizer.Optimizer, such as "
                f"mx.optimizer.create('sgd'), not {type(optimizer).__name__}"
            )
        self._updater = get_updater(optimizer)

    def _set_updater(self, updater: UpdateFunction) -> None:
        """Call `updater(key, pushed, stored)` at each push; large ones in a thread."""
        self._updater = updater

    async def save_optimizer_states(
        self, fname: str | PathLike[str], dump_optimizer: bool = False
    ) -> None:
        """Write the optimizer's counts and states; the file appears whole or not.

        Args:
            fname: The file.
            dump_optimizer: Loading takes over its learning rate, schedule and
                `rescale_grad`, too.

        Raises:
            ModuleStateError: there is no optimizer.
            OSError: the file cannot be written.
        """
        updater = self._need_optimizer("save_optimizer_states")

        def write() -> None:
            packed_file.write(fname, updater.plain_states(dump_optimizer))

        await self._serve(write, in_thread=True)

    async def load_optimizer_states(self, fname: str | PathLike[str]) -> None:
        """Set the optimizer's counts and states from such a file.

        Raises:
            ModuleStateError: there is no optimizer.
            OptimizerStatesError: the file is not of this format.
            OSError: it cannot be read.
        """
        updater = self._need_optimizer("load_optimizer_states")

        def read() -> None:
            try:
                updater.set_plain_states(packed_file.read(fname))
            except ValueError as error:
                raise OptimizerStatesError(
                    f"{fspath(fname)}: {error} (MXNet's files are read by "
                    "mx.interop.mxnet.load_optimizer_states)"
                ) from error

        await self._serve(read, in_thread=True)

    def set_gradient_compression(self, compression_params: Any) -> None:
        """Not here.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"gradient compression ({compression_params!r}) is left out: arrays do not "
            "leave this machine; leave the call away"
        )

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store can run an optimizer ("optimizer"): it can.

        Raises:
            ArgumentError: another capability.
        """
        if capability.lower() != "optimizer":
            raise ArgumentError(
                f"unknown capability {capability!r}; 'optimizer' is the only one"
            )
        return True

    async def barrier(self) -> None:
        """Wait for all workers: for the calls before this one."""
        await self._serve(lambda: None)

    def _push(self, pairs: Pairs) -> None:
        for name, arrays in pairs:
            stored = self._stored[name]
            total = _sum(arrays, stored.dtype)
            if (
                isinstance(total, RowSparseNDArray)
                and isinstance(self._updater, Updater)
                and self._updater.optimizer.rule is not None
            ):
                # Changes the rows that were pushed, when all of it has succeeded.
                self._updater(name, total, stored)
                continue
            if self._updater is not None:
                pushed, total = total, stored.copy()
                self._updater(name, as_given(pushed), as_given(total))
            self._stored[name] = np.asarray(total)

    def _pull(self, outs: Pairs, ignore_sparse: bool) -> None:
        for name, arrays in outs:
            for array in arrays:
                if isinstance(array, RowSparseNDArray):
                    if not ignore_sparse:
                        whole = RowSparseNDArray.whole(self._stored[name].copy())
                        array.indices, array.values = whole.indices, whole.values
                    continue
                np.copyto(array, self._stored[name], casting="same_kind")

    async def _serve(
        self,
        work: Callable[[], None],
        pairs: Pairs | None = None,
        in_thread: bool = False,
    ) -> None:
        """Do `work`, on these arrays if any, when it is its turn."""
        check_trio("a KVStore")
        size = sum(array.nbytes for _, arrays in pairs or () for array in arrays)
        async with self._serving:
            if in_thread or size > LARGE_COPY:
                await trio.to_thread.run_sync(work)
            else:
                work()

    def _checked(self, key: Keys, value: Values, argument: str) -> Pairs:
        """Keys with their arrays, which fit the values that are stored."""
        pairs = pair_up(key, value, argument)
        self._check_keys([name for name, _ in pairs])
        for name, arrays in pairs:
            if name not in self._stored:
                raise ArgumentError(
                    f"key {name} doesn't exist. Did you init? "
                    f"`await store.init({name!r}, value)` comes first"
                )
            for array in arrays:
                _check_fit(name, array, self._stored[name], argument)
        return pairs

    def _check_keys(self, keys: list[Key]) -> None:
        known = [*self._stored][:1] + keys
        for key in keys:
            if isinstance(known[0], str) != isinstance(key, str):
                raise ArgumentError(
                    "keys of one store are all strings or all integers; key "
                    f"{key!r} comes after {known[0]!r}"
                )

    def _need_optimizer(self, member: str) -> Updater:
        if not isinstance(self._updater, Updater):
            raise ModuleStateError(
                f"`{member}` needs an optimizer: `set_optimizer` comes first"
            )
        return self._updater


def _sum(arrays: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    """The sum from the first to the last; row-sparse if all of them are."""
    if all(isinstance(array, RowSparseNDArray) for array in arrays):
        first, *others = (array.astype(dtype) for array in arrays)
        return sum(others, first)
    total = np.array(arrays[0], dtype)
    for array in arrays[1:]:
        total += np.asarray(array).astype(dtype, copy=False)
    return total


def _within(numbers: Array, count: int) -> bool:
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() < count)


def _check_fit(key: Key, array: Any, stored: Array, argument: str) -> None:
    if array.shape != stored.shape:
        raise ArgumentError(
            f"`{argument}` of key {key!r} must have the shape of its value, "
            f"{stored.shape}, and it has {array.shape}"
        )
    given, taken = (stored, array) if argument == "out" else (array, stored)
    if not np.can_cast(given.dtype, taken.dtype, "same_kind"):
        raise ArgumentError(
            f"`{argument}` of key {key!r} has dtype {array.dtype}, which does not go "
            f"with the value's, {stored.dtype}"
        )
