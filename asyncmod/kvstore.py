"""`mx.kvstore`: named arrays that several producers add to and read from.

Module sums gradients by itself and needs no store; this one is for programs that
average or exchange arrays of their own, in MXNet's terms.

Next: `asyncmod.keyed_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from typing import Any

import trio

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    ModuleStateError,
    UnsupportedError,
)
from asyncmod.io.fairness import LARGE_COPY
from asyncmod.keyed_arrays import Pairs, row_numbers
from asyncmod.keyed_values import KeyedValues, Keys, UpdateFunction, Values
from asyncmod.module.optimizer_setup import check_kvstore
from asyncmod.optimizer import (
    Optimizer,
    OptimizerStatesError,
    Updater,
    get_updater,
    packed_file,
)
from asyncmod.trio_task import check_trio


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
        self._values = KeyedValues()
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
        pairs = self._values.check_new(key, value)
        await self._serve(lambda: self._values.add(pairs), pairs)

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
        pairs = self._values.check(key, value, "value")
        await self._serve(lambda: self._values.push(pairs), pairs)

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
        outs = self._values.check(key, out, "out")
        await self._serve(lambda: self._values.pull(outs, ignore_sparse), outs)

    async def pushpull(
        self, key: Keys, value: Values, out: Values = None, priority: int = 0
    ) -> None:
        """`push`, then `pull` into `out`, or into `value` where that is None.

        As by `pull`, row-sparse arrays are passed over: `row_sparse_pull` fills them.
        """
        pairs = self._values.check(key, value, "value")
        outs = self._values.check(key, value if out is None else out, "out")

        def exchange() -> None:
            self._values.push(pairs)
            self._values.pull(outs, ignore_sparse=True)

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
        outs = self._values.check(key, out, "out")
        flat = [(name, array) for name, arrays in outs for array in arrays]
        numbers = row_numbers(row_ids, len(flat))
        rows = list(zip(flat, numbers, strict=True))
        self._values.check_rows(rows)
        await self._serve(lambda: self._values.pull_rows(rows), outs)

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
        self._values.updater = get_updater(optimizer)

    def _set_updater(self, updater: UpdateFunction) -> None:
        """Call `updater(key, pushed, stored)` at each push; large ones in a thread."""
        self._values.updater = updater

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

    def _need_optimizer(self, member: str) -> Updater:
        if not isinstance(self._values.updater, Updater):
            raise ModuleStateError(
                f"`{member}` needs an optimizer: `set_optimizer` comes first"
            )
        return self._values.updater
