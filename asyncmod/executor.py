"""`mx.bind`: one graph on one device, without the parts that make a module.

Every argument is an input: there are no parameters, no optimizer and no splitting.

Next: `runtime.executor.group`, which runs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import trio

from asyncmod import random
from asyncmod.context import Context, current_context
from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    InputError,
    ModuleStateError,
    NameMismatchError,
)
from asyncmod.module.batches import Array, as_array
from asyncmod.module.context_groups import as_placements
from asyncmod.module.gradient_requests import REQUESTS
from asyncmod.module.metrics import LARGE
from asyncmod.module.monitoring import Monitoring
from asyncmod.nd import NDArray
from asyncmod.trio_task import check_trio
from runtime.actors import current_runtime, open_runtime
from runtime.executor.group import ExecutorGroup
from runtime.executor.specification import GroupSpec, InputSpec
from runtime.graph.compile import GradientRequest


@asynccontextmanager
async def bind(
    symbol: Any,
    args: Mapping[str, Any] | Sequence[Any],
    *,
    aux: Mapping[str, Any] | Sequence[Any] | None = None,
    grad_req: str | Mapping[str, str] = "write",
    context: Context | None = None,
    group2ctx: Mapping[str, Context] | None = None,
) -> AsyncIterator[Executor]:
    """Compile a symbol for given arguments: `async with mx.bind(...) as executor`.

    Args:
        symbol: The graph.
        args: Value of every argument, by name or in the order of `list_arguments()`;
            they fix shapes and dtypes. Lists become float32.
        aux: Values of auxiliary states, likewise; zero unless given.
        grad_req: "write", "add" or "null" for all arguments, or a dict by name, in
            which what is missing is "null".
        context: Where to run; `mx.cpu(0)` unless given.
        group2ctx: Where nodes with an attribute `ctx_group` run, by group.

    Raises:
        NameMismatchError: an argument is missing, or there is one too many.
        ArgumentTypeError: `group2ctx` is no dict of group to context.
        ArgumentError: an unknown request, or an auxiliary state of another shape.
        ShapeError: the graph contradicts the shapes.
        ScopeError: outside Trio.
    """
    check_trio("`mx.bind`")
    names = symbol.list_arguments()
    # Their own copies: forward feeds them again and again.
    values = await _copied(_by_name("args", args, names))
    requests = _requests(grad_req, names)
    states = _by_name("aux", aux, symbol.list_auxiliary_states()) if aux else {}
    spec = GroupSpec(
        graph=symbol.graph,
        devices=(context or current_context(),),
        workload=(1.0,),
        data=tuple(InputSpec(n, a.shape, a.dtype.name, -1) for n, a in values.items()),
        gradients=requests,
        for_training=True,
        seed=random.draw_seed(),
        output_axes=(-1,) * len(symbol.list_outputs()),
        placements=as_placements(group2ctx, 1, "group2ctx"),
    )
    async with AsyncExitStack() as stack:
        runtime = current_runtime()
        if runtime is None:
            runtime = await stack.enter_async_context(open_runtime())
        group = await ExecutorGroup.create(spec, runtime)
        executor = Executor(group, values, requests)
        runtime.register(executor)
        stack.push_async_callback(executor.aclose)
        stack.callback(runtime.unregister, executor)
        if states:
            _check_states(states, group)
            await group.write_parameters({}, states)
        yield executor


class Executor:
    """A compiled graph with its arguments; made by `bind`. Arrays given out are copies.

    Attributes:
        arg_names: All arguments, in order.
        output_names: All outputs, in order.
    """

    def __init__(
        self,
        group: ExecutorGroup,
        values: dict[str, Array],
        requests: Mapping[str, GradientRequest],
    ) -> None:
        self.arg_names = tuple(values)
        self.output_names = group.output_names
        self._group = group
        self._requests = requests
        self._shapes = {name: array.shape for name, array in values.items()}
        self._values = values
        self._trained = False
        self._monitoring = Monitoring()
        # A forward and its outputs belong together, whoever else calls.
        self._turn = trio.Lock()

    async def forward(self, is_train: bool = False, **inputs: Any) -> list[NDArray]:
        """Run the graph and return its outputs, in the order of `list_outputs()`.

        Cancelled, it was not run and keeps no new value, or it was run.

        Args:
            is_train: Whether operators behave as in training; `backward` needs it.
            **inputs: New values of arguments, copied and kept for later calls.

        Raises:
            NameMismatchError: there is no such argument.
            InputError: a value has another shape than the bound one.
        """
        given: dict[str, Array] = {}
        for name, value in inputs.items():
            if name not in self._shapes:
                raise NameMismatchError(
                    f"`{name}` is no argument of the symbol; its arguments are: "
                    f"{', '.join(self.arg_names)}"
                )
            array = as_array(name, value)
            if array.shape != self._shapes[name]:
                raise InputError(
                    f"`{name}` has shape {array.shape}, bound is {self._shapes[name]}: "
                    "bind again for other shapes"
                )
            given[name] = array
        async with self._turn:
            values = self._values | await _copied(given)
            recording = self._monitoring.begin()
            # The two programs have inputs of their own, so that both need every value.
            await self._group.forward(values, is_train, recording)
            self._values, self._trained = values, is_train
            if recording is not None:
                recording.deliver()
            return [output.view(NDArray) for output in await self._group.outputs()]

    async def backward(self, out_grads: Any = None) -> dict[str, NDArray]:
        """Compute gradients; auxiliary states are committed.

        Args:
            out_grads: Gradient of each output that is no loss: an array or a list.

        Returns:
            The gradient of every argument whose request is not "null".

        Raises:
            ModuleStateError: there was no `forward(is_train=True)` before.
            GradientError: an output needs a gradient.
            InputError: not one gradient per output.
        """
        if not self._trained:
            raise ModuleStateError(
                "`backward` needs `await executor.forward(is_train=True)` before it"
            )
        heads = None if out_grads is None else self._heads(out_grads)
        async with self._turn:
            recording = self._monitoring.begin()
            await self._group.backward(heads, recording)
            if recording is not None:
                recording.deliver()
            gradients = await self._group.input_gradients()
        return {
            name: gradients[name].view(NDArray)
            for name in self.arg_names
            if self._requests[name] != "null"
        }

    async def aux(self) -> dict[str, NDArray]:
        """Values of the auxiliary states."""
        _, states = await self._group.read_parameters()
        return {name: array.view(NDArray) for name, array in states.items()}

    async def zero_grad(self) -> None:
        """Set all gradients to zero; for requests "add"."""
        await self._group.zero_gradients()

    def install_monitor(self, mon: Any) -> None:
        """Let an `mx.mon.Monitor` see what is inside; see Module.install_monitor."""
        self._monitoring.install(mon)

    async def aclose(self) -> None:
        """Free the memory. Idempotent; cancelled, it is freed all the same, later."""
        await self._group.aclose()

    def _heads(self, out_grads: Any) -> dict[str, Array]:
        given = list(out_grads) if isinstance(out_grads, list | tuple) else [out_grads]
        if len(given) != len(self.output_names):
            raise InputError(
                f"`out_grads` has {len(given)} arrays for {len(self.output_names)} "
                f"outputs: {', '.join(self.output_names)}"
            )
        return {
            name: as_array(f"out_grads of {name}", value)
            for name, value in zip(self.output_names, given, strict=True)
            if value is not None
        }


async def _copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copies; of more than 1 MB in a thread."""

    def copy() -> dict[str, Array]:
        return {name: array.copy() for name, array in arrays.items()}

    if sum(array.nbytes for array in arrays.values()) > LARGE:
        return await trio.to_thread.run_sync(copy)
    return copy()


def _by_name(
    kind: str, given: Mapping[str, Any] | Sequence[Any], names: Sequence[str]
) -> dict[str, Array]:
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, list | tuple):
        if len(given) != len(names):
            raise NameMismatchError(
                f"`{kind}` has {len(given)} arrays for {len(names)} names: "
                f"{', '.join(names)}"
            )
        named = dict(zip(names, given, strict=True))
    else:
        raise ArgumentTypeError(
            f"`{kind}` must be a dict by name or a list, not {type(given).__name__}"
        )
    missing = [name for name in names if name not in named]
    extra = [name for name in named if name not in names]
    if missing or extra:
        raise NameMismatchError(
            f"`{kind}` lacks {missing or 'nothing'} and has {extra or 'nothing'} too "
            f"many; the symbol has: {', '.join(names)}"
        )
    return {name: _first_value(name, named[name]) for name in names}


def _first_value(name: str, value: Any) -> Array:
    array = as_array(name, value)
    # As mx.nd.array: what has no dtype of its own becomes float32.
    return array if hasattr(value, "dtype") else array.astype(np.float32)


def _requests(
    grad_req: str | Mapping[str, str], names: Sequence[str]
) -> dict[str, GradientRequest]:
    by_name = (
        dict.fromkeys(names, grad_req) if isinstance(grad_req, str) else dict(grad_req)
    )
    requests: dict[str, GradientRequest] = dict.fromkeys(names, "null")
    for name, request in by_name.items():
        if name not in requests:
            raise NameMismatchError(
                f"`grad_req` names `{name}`, which is no argument of the symbol: "
                f"{', '.join(names)}"
            )
        if request not in REQUESTS:
            raise ArgumentError(
                f"`grad_req` has {request!r} for `{name}`; it must be one of "
                f"{', '.join(REQUESTS)}"
            )
        requests[name] = request  # type: ignore[assignment]
    return requests


def _check_states(states: Mapping[str, Array], group: ExecutorGroup) -> None:
    for name, array in states.items():
        if array.shape != group.auxiliary_shapes[name]:
            raise ArgumentError(
                f"`aux` has shape {array.shape} for `{name}`; the symbol needs "
                f"{group.auxiliary_shapes[name]}"
            )
