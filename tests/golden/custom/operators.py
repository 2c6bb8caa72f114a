"""Two custom operators and a net of them, for MXNet and for asyncmod alike."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_operators(mx: Any) -> None:
    """Register `golden_softmax` and `golden_center` with either library."""

    class Softmax(mx.operator.CustomOp):  # type: ignore[misc]
        def forward(
            self, is_train: Any, req: Any, in_data: Any, out_data: Any, aux: Any
        ) -> None:
            x = in_data[0].asnumpy()
            y = np.exp(x - x.max(axis=1, keepdims=True))
            y /= y.sum(axis=1, keepdims=True)
            self.assign(out_data[0], req[0], mx.nd.array(y))

        def backward(
            self,
            req: Any,
            out_grad: Any,
            in_data: Any,
            out_data: Any,
            in_grad: Any,
            aux: Any,
        ) -> None:
            label = in_data[1].asnumpy().astype(int)
            y = out_data[0].asnumpy().copy()
            y[np.arange(len(label)), label] -= 1
            self.assign(in_grad[0], req[0], mx.nd.array(y))

    @mx.operator.register("golden_softmax")
    class SoftmaxProp(mx.operator.CustomOpProp):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(need_top_grad=False)

        def list_arguments(self) -> list[str]:
            return ["data", "label"]

        def infer_shape(self, in_shape: Any) -> Any:
            return [in_shape[0], (in_shape[0][0],)], [in_shape[0]], []

        def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Any:
            return Softmax()

    class Center(mx.operator.CustomOp):  # type: ignore[misc]
        """Subtracts a moving mean; its backward uses what its forward kept."""

        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate = rate

        def forward(
            self, is_train: Any, req: Any, in_data: Any, out_data: Any, aux: Any
        ) -> None:
            self.scale = 1.5 if is_train else 1.0
            self.assign(out_data[0], req[0], (in_data[0] - aux[0].reshape((1, -1))))
            if is_train:
                mean = mx.nd.mean(in_data[0], axis=0)
                aux[0][:] = aux[0] * (1 - self.rate) + mean * self.rate

        def backward(
            self,
            req: Any,
            out_grad: Any,
            in_data: Any,
            out_data: Any,
            in_grad: Any,
            aux: Any,
        ) -> None:
            self.assign(in_grad[0], req[0], out_grad[0] * self.scale)

    @mx.operator.register("golden_center")
    class CenterProp(mx.operator.CustomOpProp):  # type: ignore[misc]
        def __init__(self, rate: str) -> None:
            super().__init__()
            self.rate = float(rate)

        def list_auxiliary_states(self) -> list[str]:
            return ["mean"]

        def infer_shape(self, in_shape: Any) -> Any:
            return in_shape, [in_shape[0]], [(in_shape[0][1],)]

        def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Any:
            return Center(self.rate)


def net(sym: Any) -> Any:
    """A perceptron with both."""
    x = sym.FullyConnected(sym.Variable("data"), num_hidden=16, name="fc1")
    x = sym.Custom(x, op_type="golden_center", rate=0.25, name="center")
    x = sym.Activation(x, act_type="tanh", name="tanh")
    x = sym.FullyConnected(x, num_hidden=4, name="fc2")
    return sym.Custom(data=x, op_type="golden_softmax", name="softmax")
