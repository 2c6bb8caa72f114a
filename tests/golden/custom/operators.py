"""Two custom operators and a net of them, for MXNet and for asyncmod alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]


def operator_of(
    mx: Any,
    outputs: Callable[[Any, bool, Arrays, Arrays], Arrays],
    gradients: Callable[[Any, Arrays, Arrays, Arrays, Arrays], Arrays],
) -> Any:
    """A class of operators made of two functions.

    Args:
        mx: The library.
        outputs: Of the operator, whether it trains, the inputs, and the auxiliary
            states, which it may change.
        gradients: Of the operator, the gradients of the outputs, the inputs, the
            outputs, and the auxiliary states.
    """

    class Operator(mx.operator.CustomOp):  # type: ignore[misc]
        def forward(
            self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any
        ) -> None:
            values = outputs(self, is_train, in_data, aux)
            for place, what, value in zip(out_data, req, values, strict=True):
                self.assign(place, what, value)

        def backward(
            self,
            req: Any,
            out_grad: Any,
            in_data: Any,
            out_data: Any,
            in_grad: Any,
            aux: Any,
        ) -> None:
            values = gradients(self, out_grad, in_data, out_data, aux)
            # A label wants none.
            for place, what, value in zip(in_grad, req, values, strict=False):
                self.assign(place, what, value)

    return Operator


def make_operators(mx: Any) -> None:
    """Register `golden_softmax` and `golden_center` with either library."""

    def softmax(operator: Any, is_train: bool, inputs: Arrays, aux: Arrays) -> Arrays:
        x = inputs[0].asnumpy()
        y = np.exp(x - x.max(axis=1, keepdims=True))
        return [mx.nd.array(y / y.sum(axis=1, keepdims=True))]

    def softmax_gradient(
        operator: Any, heads: Arrays, inputs: Arrays, outputs: Arrays, aux: Arrays
    ) -> Arrays:
        label = inputs[1].asnumpy().astype(int)
        y = outputs[0].asnumpy().copy()
        y[np.arange(len(label)), label] -= 1
        return [mx.nd.array(y)]

    @mx.operator.register("golden_softmax")
    class SoftmaxProp(mx.operator.CustomOpProp):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(need_top_grad=False)

        def list_arguments(self) -> list[str]:
            return ["data", "label"]

        def infer_shape(self, in_shape: Any) -> Any:
            return [in_shape[0], (in_shape[0][0],)], [in_shape[0]], []

        def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Any:
            return operator_of(mx, softmax, softmax_gradient)()

    @mx.operator.register("golden_center")
    class CenterProp(mx.operator.CustomOpProp):  # type: ignore[misc]
        """Subtracts a moving mean; its backward uses what its forward kept."""

        def __init__(self, rate: str) -> None:
            super().__init__()
            self.rate = float(rate)

        def list_auxiliary_states(self) -> list[str]:
            return ["mean"]

        def infer_shape(self, in_shape: Any) -> Any:
            return in_shape, [in_shape[0]], [(in_shape[0][1],)]

        def centered(
            self, operator: Any, is_train: bool, inputs: Arrays, aux: Arrays
        ) -> Arrays:
            operator.scale = 1.5 if is_train else 1.0
            output = inputs[0] - aux[0].reshape((1, -1))
            if is_train:
                mean = mx.nd.mean(inputs[0], axis=0)
                aux[0][:] = aux[0] * (1 - self.rate) + mean * self.rate
            return [output]

        def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Any:
            return operator_of(
                mx,
                self.centered,
                lambda operator, heads, *_: [heads[0] * operator.scale],
            )()


def net(sym: Any) -> Any:
    """A perceptron with both."""
    x = sym.FullyConnected(sym.Variable("data"), num_hidden=16, name="fc1")
    x = sym.Custom(x, op_type="golden_center", rate=0.25, name="center")
    x = sym.Activation(x, act_type="tanh", name="tanh")
    x = sym.FullyConnected(x, num_hidden=4, name="fc2")
    return sym.Custom(data=x, op_type="golden_softmax", name="softmax")
