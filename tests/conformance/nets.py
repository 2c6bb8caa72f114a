"""Small nets that the conformance suites run; float32, seeded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import asyncmod.symbol as sym
from runtime.devices.contract import Device, Program
from runtime.graph.compile import Request, compile_plan


@dataclass
class Net:
    """A symbol with shapes of its inputs and values for everything."""

    symbol: sym.Symbol
    inputs: dict[str, tuple[int, ...]]
    gradients: dict[str, str] = field(default_factory=dict)

    def values(self, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        random = np.random.default_rng(seed)
        shapes, _, auxiliaries = self.symbol.infer_shape(**self.inputs)
        names = self.symbol.list_arguments()
        values = {
            name: random.normal(0, 0.5, shape).astype(np.float32)
            for name, shape in zip(names, shapes, strict=True)
        }
        for name, shape in zip(
            self.symbol.list_auxiliary_states(), auxiliaries, strict=True
        ):
            values[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        if "softmax_label" in values:
            classes = random.integers(0, 3, values["softmax_label"].shape)
            values["softmax_label"] = classes.astype(np.float32)
        return values

    def compile(
        self, device: Device, is_train: bool, guards: int = 0, slots: int = 1
    ) -> Program:
        arguments = self.symbol.list_arguments()
        wishes = {n: "write" for n in arguments if n != "softmax_label"}
        plan = compile_plan(
            Request(
                graph=self.symbol.graph,
                inputs=tuple(self.inputs),
                shapes=self.inputs,
                gradients={**wishes, **self.gradients},  # type: ignore[arg-type]
                is_train=is_train,
                native=device.native,
                guards=guards,
            )
        )
        return device.compile(plan, slots=slots)

    def load(self, program: Program, seed: int = 0, slot: int = 0) -> None:
        values = self.values(seed)
        for segment in ("parameter", "auxiliary"):
            for name in program.plan.tensors[segment]:
                program.write(segment, name, values[name])
        self.feed(program, seed, slot)

    def feed(self, program: Program, seed: int = 0, slot: int = 0) -> None:
        values = self.values(seed)
        for name in program.plan.tensors["input"]:
            program.write("input", name, values[name], slot)
        random = np.random.default_rng(seed)
        for name, tensor in program.plan.tensors.get("head", {}).items():
            program.write("head", name, random.normal(0, 0.5, tensor.shape))


def results(program: Program, slot: int = 0) -> dict[str, NDArray[np.float32]]:
    """Everything that a step leaves behind."""
    segments = ("output", "gradient", "input_gradient", "auxiliary")
    return {
        f"{segment}.{name}": program.read(segment, name, slot * (segment == "output"))
        for segment in segments
        for name in program.plan.tensors.get(segment, {})
    }


def mlp() -> Net:
    net = sym.FullyConnected(sym.Variable("data"), num_hidden=5, name="fc1")
    net = sym.Activation(net, act_type="relu")
    net = sym.FullyConnected(net, num_hidden=3, name="fc2")
    return Net(sym.SoftmaxOutput(net, name="softmax"), _inputs((4, 7), (4,)))


def lenet() -> Net:
    net = sym.Variable("data")
    for i, filters in enumerate((3, 10)):
        net = sym.Convolution(net, num_filter=filters, kernel=(3, 3), name=f"conv{i}")
        net = sym.Activation(net, act_type="tanh")
        net = sym.Pooling(net, kernel=(2, 2), stride=(2, 2), pool_type="max")
    net = sym.FullyConnected(sym.Flatten(net), num_hidden=3, name="fc")
    return Net(sym.SoftmaxOutput(net, name="softmax"), _inputs((2, 1, 12, 12), (2,)))


def resnet() -> Net:
    def unit(x: sym.Symbol, filters: int, stride: int, name: str) -> sym.Symbol:
        y = sym.Convolution(
            x,
            num_filter=filters,
            kernel=(3, 3),
            stride=(stride, stride),
            pad=(1, 1),
            no_bias=True,
            name=f"{name}_conv",
        )
        return sym.BatchNorm(y, fix_gamma=False, name=f"{name}_norm")

    def relu(x: sym.Symbol) -> sym.Symbol:
        return sym.Activation(x, act_type="relu")

    x = relu(unit(sym.Variable("data"), 4, 1, "stem"))
    y = unit(relu(unit(x, 4, 1, "a")), 4, 1, "b")
    x = relu(y + x)
    y = unit(relu(unit(x, 9, 2, "c")), 9, 1, "d")
    x = relu(y + unit(x, 9, 2, "shortcut"))
    x = sym.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1))
    x = sym.FullyConnected(sym.Flatten(x), num_hidden=3, name="fc")
    return Net(sym.SoftmaxOutput(x, name="softmax"), _inputs((3, 2, 7, 6), (3,)))


def language_model() -> Net:
    """A table, recurrent layers forth and back, a label for every time step."""
    x = sym.Embedding(sym.Variable("data") * 4, input_dim=5, output_dim=6, name="table")
    for mode, names in (("lstm", ("state", "state_cell")), ("gru", ("state",))):
        states = [sym.Variable(f"{mode}_{name}") for name in names]
        x = sym.RNN(
            x,
            sym.Variable(f"{mode}_parameters"),
            *states,
            state_size=4,
            num_layers=2,
            mode=mode,
            bidirectional=mode == "gru",
            name=mode,
        )
    x = sym.FullyConnected(sym.Reshape(x, shape=(-1, 8)), num_hidden=3, name="fc")
    label = sym.Reshape(sym.Variable("softmax_label"), shape=(-1,))
    return Net(sym.SoftmaxOutput(x, label, name="softmax"), _inputs((3, 2), (3, 2)))


def open_ended() -> Net:
    """Outputs that are no losses, values used twice, an output that is an input."""
    a, b = sym.Variable("a"), sym.Variable("b")
    total = a * b + a
    return Net(
        sym.Group([total, sym.Activation(total, act_type="sigmoid"), a]),
        {"a": (3, 4), "b": (3, 4)},
    )


def _inputs(
    data: tuple[int, ...], label: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    return {"data": data, "softmax_label": label}


NETS = {
    "mlp": mlp,
    "lenet": lenet,
    "resnet": resnet,
    "language_model": language_model,
    "open_ended": open_ended,
}
