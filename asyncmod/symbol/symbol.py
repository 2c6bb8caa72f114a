"""Symbol: the user's handle over one or more outputs of a graph.

Symbols are immutable values. The functions that make them are in
`asyncmod.symbol.operators` and `asyncmod.symbol.variables`; whoever binds and runs one
takes its `graph`.

Next: `runtime.graph.ir`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import DTypeLike

from asyncmod.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from asyncmod.symbol import fluent, inference, json_writer
from asyncmod.symbol.apply import visible
from asyncmod.symbol.arithmetic import binary, reflected
from asyncmod.symbol.describe import debug_text, shortened
from asyncmod.symbol.hidden import listed, node_texts
from asyncmod.symbol.substitute import substitute
from runtime.errors import GraphError
from runtime.graph.ir import Entry, Graph


class Symbol:
    """Outputs of a graph: of one operator, of a variable, or a group.

    Args:
        entries: The outputs, at least one.
    """

    # NumPy numbers leave arithmetic with a symbol to the symbol.
    __array_ufunc__ = None

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)

    @cached_property
    def graph(self) -> Graph:
        """The graph below these outputs, for binding."""
        return Graph(self.entries)

    @property
    def entry(self) -> Entry:
        """The only output.

        Raises:
            GraphError: if there are several.
        """
        if len(self.entries) != 1:
            raise GraphError(
                f"one output is needed here, but {self!r} has {len(self)} "
                f"({', '.join(self.list_outputs())}): choose one, for example symbol[0]"
            )
        return self.entries[0]

    # Names

    @property
    def name(self) -> str | None:
        """The name of the node; None if the outputs are of several nodes."""
        nodes = {entry.node for entry in self.entries}
        return nodes.pop().name if len(nodes) == 1 else None

    def list_arguments(self) -> list[str]:
        """Names of all variables that are not auxiliary states, depth first."""
        return [node.name for node in self.graph.arguments]

    def list_auxiliary_states(self) -> list[str]:
        """Names of the variables that operators keep as their state."""
        return [node.name for node in self.graph.auxiliaries]

    def list_inputs(self) -> list[str]:
        """Names of all variables."""
        return [node.name for node in self.graph.nodes if node.is_variable]

    def list_outputs(self) -> list[str]:
        """Names of the outputs: `fc_output`; a variable's is its own name."""
        return list(self.graph.output_names)

    # Attributes

    def attr(self, key: str) -> str | None:
        """One attribute of the node, by its plain or hidden name; None if not set."""
        return self.list_attr().get(key)

    def list_attr(self) -> dict[str, str]:
        """All attributes of the node; none if the outputs are of several nodes."""
        if self.name is None:
            return {}
        return listed(self.entries[0].node.text)

    def attr_dict(self) -> dict[str, dict[str, str]]:
        """Node name to attributes, for every node that has some."""
        texts = node_texts(self.graph)
        return {node.name: listed(text) for node, text in texts.items() if text}

    # Parts

    def get_internals(self) -> Symbol:
        """All outputs of all nodes, as a group: `net.get_internals()["fc1_output"]`."""
        nodes = self.graph.nodes
        return Symbol([entry for node in nodes for entry in visible(node)])

    def get_children(self) -> Symbol | None:
        """What the nodes of these outputs read, as a group; None if nothing."""
        nodes = dict.fromkeys(entry.node for entry in self.entries)
        children = [entry for node in nodes for entry in node.inputs]
        return Symbol(children) if children else None

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Symbol]:
        return (Symbol((entry,)) for entry in self.entries)

    def __getitem__(self, index: int | str | slice) -> Symbol:
        """One output, by number or by name; a slice gives a group.

        Raises:
            IndexError: there is no such number.
            ArgumentError: no output has that name, or several have.
        """
        if isinstance(index, str):
            index = self._position(index)
        if isinstance(index, slice):
            chosen = self.entries[index]
            if not chosen:
                raise IndexError(f"{index} selects none of {len(self)} outputs")
            return Symbol(chosen)
        try:
            return Symbol((self.entries[index],))
        except IndexError:
            raise IndexError(
                f"there is no output {index}: {self!r} has {len(self)}"
            ) from None

    def _position(self, name: str) -> int:
        outputs = self.list_outputs()
        if name not in outputs:
            raise ArgumentError(
                f'Cannot find output that matches name "{name}"; the outputs are: '
                f"{shortened(outputs, name)}"
            )
        if outputs.count(name) > 1:
            raise ArgumentError(
                f'There are multiple outputs with name "{name}"; choose by number'
            )
        return outputs.index(name)

    # Composition

    def __call__(
        self, *inputs: Symbol, name: str | None = None, **named: Symbol
    ) -> Symbol:
        """This graph with variables replaced by other symbols.

        Args:
            *inputs: Replacements in the order of `list_inputs()`; not with `named`.
            name: A new name for the node of the first output.
            **named: Replacements by variable name.

        Raises:
            GraphError: no variable has that name, or there are too many inputs.
            ArgumentTypeError: an input is not a symbol.
        """
        return Symbol(substitute(self.graph, inputs, named, name))

    # Inference

    def infer_shape(
        self, *shapes: inference.KnownShape, **known: inference.KnownShape
    ) -> inference.Triple[tuple[int, ...]]:
        """Infer all shapes from some of the arguments'.

        Args:
            *shapes: Shapes in the order of `list_arguments()`, None for unknown ones.
            **known: Shapes by argument name; 0 stands for an unknown size.

        Returns:
            Shapes of arguments, outputs and auxiliary states; three times None, with a
            warning that names what is missing, if what is given does not suffice.

        Raises:
            ShapeError: shapes contradict each other, or a name is not an argument.
        """
        return inference.shapes(self.graph, shapes, known, partial=False)

    def infer_shape_partial(
        self, *shapes: inference.KnownShape, **known: inference.KnownShape
    ) -> inference.Triple[tuple[int, ...]]:
        """As `infer_shape`, but with 0 for an unknown size and () for no knowledge."""
        return inference.shapes(self.graph, shapes, known, partial=True)

    def infer_type(
        self, *dtypes: DTypeLike, **known: DTypeLike
    ) -> inference.Triple[type[Any]]:
        """Infer all dtypes from some of the arguments'; float32 if nothing else says.

        Args:
            *dtypes: In the order of `list_arguments()`, None for unknown ones.
            **known: By argument name.

        Returns:
            NumPy scalar types of arguments, outputs and auxiliary states.

        Raises:
            ShapeError: dtypes contradict each other, or a name is not an argument.
        """
        return inference.dtypes(self.graph, dtypes, known)

    # Text

    def tojson(self, remove_amp_cast: bool = True) -> str:
        """This graph in MXNet's JSON.

        Args:
            remove_amp_cast: Leave out the casts of automatic mixed precision.
        """
        return json_writer.dumps(self.graph, remove_amp_cast)

    def save(self, fname: str | os.PathLike[str], remove_amp_cast: bool = True) -> None:
        """Write `tojson()` to a file, which MXNet reads."""
        Path(fname).write_text(self.tojson(remove_amp_cast), "utf-8", newline="\n")

    def debug_str(self) -> str:
        """All nodes with inputs and attributes, to read."""
        return debug_text(self.graph)

    def __repr__(self) -> str:
        if self.name is not None:
            return f"<Symbol {self.name}>"
        names = [entry.node.name for entry in self.entries]
        return f"<Symbol group [{shortened(names)}]>"

    # Not here

    def bind(self, *args: object, **kwargs: object) -> NoReturn:
        """Replaced by `asyncmod.bind`.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "symbols are bound by an async context manager: "
            "async with mx.bind(symbol, args, grad_req=..., context=...) as executor"
        )

    simple_bind = bind
    eval = bind

    # Arithmetic

    __add__ = __radd__ = binary("elemwise_add", "_plus_scalar", "_plus")
    __sub__ = binary("elemwise_sub", "_minus_scalar", "_minus")
    __rsub__ = reflected("_rminus_scalar", "_rminusscalar")
    __mul__ = __rmul__ = binary("elemwise_mul", "_mul_scalar", "_mul")
    __truediv__ = binary("elemwise_div", "_div_scalar", "_div")
    __rtruediv__ = reflected("_rdiv_scalar", "_rdivscalar")
    __mod__ = binary("_mod", "_mod_scalar", "_mod")
    __rmod__ = reflected("_rmod_scalar", "_rmodscalar")
    __pow__ = binary("_power", "_power_scalar", "_power")
    __rpow__ = reflected("_rpower_scalar", "_rpowerscalar")
    __gt__ = binary("_greater", "_greater_scalar", "_greater")
    __lt__ = binary("_lesser", "_lesser_scalar", "_lesser")
    __ge__ = binary(
        "_greater_equal",
        "_greater_equal_scalar",
        "_greater_equal",
        "_greaterequalscalar",
    )
    __le__ = binary(
        "_lesser_equal",
        "_lesser_equal_scalar",
        "_lesser_equal",
        "_lesserequalscalar",
    )
    __eq__ = binary(  # type: ignore[assignment]
        "_equal", "_equal_scalar", "_equal"
    )
    __ne__ = binary(  # type: ignore[assignment]
        "_not_equal", "_not_equal_scalar", "_not_equal", "_notequalscalar"
    )
    __hash__ = object.__hash__

    def __neg__(self) -> Symbol:
        return self * -1.0

    def __bool__(self) -> NoReturn:
        raise ArgumentTypeError(
            f"{self!r} has no truth value: it stands for a computation that has not "
            "run; to compare handles use `is`"
        )

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        """Operators as methods: `symbol.reshape(shape=(0, -1))`."""
        if name not in fluent.METHODS:
            raise AttributeError(
                f"Symbol has no member `{name}`; operators are functions of mx.symbol"
            )
        from asyncmod import symbol

        return partial(getattr(symbol, fluent.METHODS[name]), self)

    # A symbol is a value: copies share the graph, pickles are MXNet's JSON.

    def __copy__(self) -> Symbol:
        return self

    def __deepcopy__(self, memo: Mapping[int, object]) -> Symbol:
        return self

    def __reduce__(self) -> tuple[Callable[[str], Symbol], tuple[str]]:
        from asyncmod.symbol.files import load_json

        return load_json, (self.tojson(remove_amp_cast=False),)
