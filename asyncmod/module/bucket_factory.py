"""The module of a bucket: made by the user's function, bound to the default's memory.

Next: `asyncmod.module.module`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import trio

from asyncmod.errors import (
    ArgumentError,
    ArgumentTypeError,
    MissingParameterError,
)
from asyncmod.module.module import Module
from asyncmod.module.scope import Scope
from asyncmod.symbol import NameManager

SymbolGenerator = Callable[
    [Any], tuple[Any, Sequence[str] | None, Sequence[str] | None]
]
Shapes = Callable[[Module], tuple[Any, Any]]


class BucketFactory:
    """See the module.

    Args:
        sym_gen: As for BucketingModule.
        fixed_names: Parameters that are not trained, of all buckets.
        state_names: Arguments that are states, of all buckets.
        scope: What the modules live in.
        options: Other arguments of their constructor.

    Attributes:
        grad_req: What they are bound with.
        monitor: What is installed on those that are made from now on.
    """

    def __init__(
        self,
        sym_gen: SymbolGenerator,
        fixed_names: Sequence[str],
        state_names: Sequence[str],
        scope: Scope,
        options: Mapping[str, Any],
    ) -> None:
        if not callable(sym_gen):
            raise ArgumentTypeError(
                "`sym_gen` must be a function of a bucket key that returns (symbol, "
                f"data_names, label_names), not {sym_gen!r}"
            )
        self._sym_gen = sym_gen
        self._fixed_names = list(fixed_names)
        self._state_names = list(state_names)
        self._scope = scope
        self._options = options
        self.grad_req: Any = "write"
        self.monitor: Any = None

    def default(self, key: Any) -> Module:
        """The module of the default bucket, not bound."""
        return self._module(self._generate(key), self._fixed_names, self._state_names)

    async def bound(self, key: Hashable, default: Module, shapes: Shapes) -> Module:
        """The module of another bucket, bound over the parameters of the default one.

        Args:
            key: The bucket's.
            default: The module of the default bucket.
            shapes: Describes data and labels for a module.
        """
        generated = await trio.to_thread.run_sync(self._generate, key)
        arguments = generated[0].list_arguments()
        module = self._module(
            generated,
            [name for name in self._fixed_names if name in arguments],
            [name for name in self._state_names if name in arguments],
        )
        # Random numbers must not depend on when a bucket is compiled.
        module.core.seed = default.core.seed
        _check_parameters(key, module, default)
        data, labels = shapes(module)
        grad_req = self.grad_req
        if isinstance(grad_req, Mapping):
            grad_req = {n: wish for n, wish in grad_req.items() if n in arguments}
        await module.bind(
            data_shapes=data,
            label_shapes=labels,
            for_training=default.for_training,
            inputs_need_grad=default.inputs_need_grad,
            grad_req=grad_req,
            shared_module=default,
        )
        if self.monitor is not None:
            module.install_monitor(self.monitor)
        return module

    def _generate(self, key: Any) -> tuple[Any, Any, Any]:
        try:
            with NameManager():
                generated = self._sym_gen(key)
        except Exception as error:
            error.add_note(f"raised in `sym_gen` for the bucket key {key!r}")
            raise
        parts: Any = generated
        if not isinstance(parts, list | tuple) or len(parts) != 3:
            raise ArgumentTypeError(
                "`sym_gen` must return (symbol, data_names, label_names); for the "
                f"bucket key {key!r} it returned {parts!r}"
            )
        symbol, data_names, label_names = parts
        return symbol, data_names, label_names

    def _module(
        self, generated: tuple[Any, Any, Any], fixed: list[str], states: list[str]
    ) -> Module:
        module = Module(
            *generated, **self._options, fixed_param_names=fixed, state_names=states
        )
        module.scope = self._scope
        return module


def saved_or_made(
    symbols: Mapping[Any, Any],
    sym_gen: SymbolGenerator | None,
    default_bucket_key: Any,
) -> SymbolGenerator:
    """A generator that prefers saved symbols, by bucket key.

    Raises:
        ArgumentError: `sym_gen` or `default_bucket_key` is missing.
    """
    if sym_gen is None or default_bucket_key is None:
        raise ArgumentError(
            "a BucketingModule is loaded with `sym_gen` and `default_bucket_key`: the "
            "files do not say which arguments are data and labels"
        )

    def generate(key: Any) -> tuple[Any, Any, Any]:
        symbol, data_names, label_names = sym_gen(key)
        return symbols.get(key, symbol), data_names, label_names

    return generate


def _check_parameters(key: Hashable, module: Module, default: Module) -> None:
    """Refuse a bucket whose parameters the default bucket has no memory for.

    Raises:
        MissingParameterError: naming the first.
    """
    known = set(default.core.definition.value_names)
    for name in module.core.definition.value_names:
        if name not in known:
            raise MissingParameterError(
                f"the bucket {key!r} has the parameter `{name}`, which the default "
                "bucket lacks; all buckets share the parameters of the default bucket: "
                "choose as `default_bucket_key` a bucket that has them all"
            )
