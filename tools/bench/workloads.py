"""The workloads: what is trained, at which size, as one symbol for two libraries.

`symbol(name, sym)` composes with `sym`, which is `asyncmod.symbol` or
`mxnet.symbol`: both offer the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Workload:
    """Sizes of one workload.

    Attributes:
        batch: Rows in a batch.
        shape: One row, channels first.
        classes: How many classes the labels name.
        network: Which network; see `symbol`.
    """

    batch: int
    shape: tuple[int, ...]
    classes: int
    network: str


WORKLOADS = {
    "W1_64": Workload(64, (784,), 10, "mlp"),
    "W1_256": Workload(256, (784,), 10, "mlp"),
    "W2": Workload(64, (1, 28, 28), 10, "lenet"),
    "W3_64": Workload(64, (3, 32, 32), 10, "resnet20"),
    "W3_128": Workload(128, (3, 32, 32), 10, "resnet20"),
    "W5": Workload(8, (16,), 4, "tiny"),
}

# Widths of the hidden layers of the two multilayer perceptrons.
HIDDEN = {"mlp": (512, 256), "tiny": (32,)}
# Channels and first stride of the three groups of blocks of the residual network.
GROUPS = ((16, 1), (32, 2), (64, 2))
BLOCKS_PER_GROUP = 3
# All peers train with these.
LEARNING_RATE = 0.01
MOMENTUM = 0.9


def symbol(name: str, sym: Any) -> Any:
    """The network of workload `name` with a softmax head, composed with `sym`."""
    workload = WORKLOADS[name]
    body = {"mlp": mlp, "tiny": mlp, "lenet": lenet, "resnet20": resnet20}
    net = body[workload.network](sym, sym.Variable("data"), workload)
    return sym.SoftmaxOutput(net, name="softmax")


def mlp(sym: Any, x: Any, workload: Workload) -> Any:
    for width in HIDDEN[workload.network]:
        x = sym.FullyConnected(x, num_hidden=width)
        x = sym.Activation(x, act_type="relu")
    return sym.FullyConnected(x, num_hidden=workload.classes)


def lenet(sym: Any, x: Any, workload: Workload) -> Any:
    for filters in (20, 50):
        x = sym.Convolution(x, num_filter=filters, kernel=(5, 5))
        x = sym.Activation(x, act_type="tanh")
        x = sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
    x = sym.FullyConnected(sym.Flatten(x), num_hidden=500)
    x = sym.Activation(x, act_type="tanh")
    return sym.FullyConnected(x, num_hidden=workload.classes)


def resnet20(sym: Any, x: Any, workload: Workload) -> Any:
    x = sym.Activation(normalized_convolution(sym, x, 16, 3, 1), act_type="relu")
    channels = 16
    for filters, first_stride in GROUPS:
        for block in range(BLOCKS_PER_GROUP):
            stride = first_stride if block == 0 else 1
            x = residual_block(sym, x, filters, stride, filters == channels)
            channels = filters
    x = sym.Pooling(x, global_pool=True, kernel=(8, 8), pool_type="avg")
    return sym.FullyConnected(sym.Flatten(x), num_hidden=workload.classes)


def residual_block(sym: Any, x: Any, filters: int, stride: int, identity: bool) -> Any:
    shortcut = x if identity else normalized_convolution(sym, x, filters, 1, stride)
    x = normalized_convolution(sym, x, filters, 3, stride)
    x = sym.Activation(x, act_type="relu")
    x = normalized_convolution(sym, x, filters, 3, 1)
    return sym.Activation(x + shortcut, act_type="relu")


def normalized_convolution(
    sym: Any, x: Any, filters: int, kernel: int, stride: int
) -> Any:
    x = sym.Convolution(
        x,
        num_filter=filters,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(kernel // 2, kernel // 2),
        no_bias=True,
    )
    return sym.BatchNorm(x, fix_gamma=False, eps=1e-5, momentum=0.9)
