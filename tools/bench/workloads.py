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
        is_sequence: Whether a row is a sequence of class numbers with a label for each;
            time is the first axis then, the batch the second one.
    """

    batch: int
    shape: tuple[int, ...]
    classes: int
    network: str
    is_sequence: bool = False

    @property
    def data_shape(self) -> tuple[int, ...]:
        if self.is_sequence:
            return (*self.shape, self.batch)
        return (self.batch, *self.shape)

    @property
    def label_shape(self) -> tuple[int, ...]:
        return self.data_shape if self.is_sequence else (self.batch,)

    @property
    def layout(self) -> str:
        return "TN" if self.is_sequence else "NCHW"

    @property
    def state_names(self) -> list[str]:
        """Inputs of the symbol that stay zero."""
        return ["state", "state_cell"] if self.is_sequence else []


WORKLOADS = {
    "W1_64": Workload(64, (784,), 10, "mlp"),
    "W1_256": Workload(256, (784,), 10, "mlp"),
    "W2": Workload(64, (1, 28, 28), 10, "lenet"),
    "W3_64": Workload(64, (3, 32, 32), 10, "resnet20"),
    "W3_128": Workload(128, (3, 32, 32), 10, "resnet20"),
    "W4": Workload(32, (32,), 10000, "language_model", is_sequence=True),
    "W5": Workload(8, (16,), 4, "tiny"),
    "W6": Workload(32, (3, 32, 32), 10, "mobilenet"),
}

# Widths of the hidden layers of the two multilayer perceptrons.
HIDDEN = {"mlp": (512, 256), "tiny": (32,)}
# Channels and first stride of the three groups of blocks of the residual network.
GROUPS = ((16, 1), (32, 2), (64, 2))
BLOCKS_PER_GROUP = 3
# Filters and stride of the blocks of the network of depthwise convolutions, whose stem
# has so many filters.
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2))
STEM = 32
# Width and number of the layers of the language model.
RECURRENT_WIDTH = 200
RECURRENT_LAYERS = 2
# All peers train with these.
LEARNING_RATE = 0.01
MOMENTUM = 0.9


def symbol(name: str, sym: Any) -> Any:
    """The network of workload `name` with a softmax head, composed with `sym`."""
    workload = WORKLOADS[name]
    body = {
        "mlp": mlp,
        "tiny": mlp,
        "lenet": lenet,
        "resnet20": resnet20,
        "language_model": language_model,
        "mobilenet": mobilenet,
    }
    net = body[workload.network](sym, sym.Variable("data"), workload)
    if workload.is_sequence:
        label = sym.Reshape(sym.Variable("softmax_label"), shape=(-1,))
        return sym.SoftmaxOutput(net, label, name="softmax")
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


def mobilenet(sym: Any, x: Any, workload: Workload) -> Any:
    """Blocks of a convolution per channel and one per pixel, each normalized."""
    x = sym.Activation(normalized_convolution(sym, x, STEM, 3, 1), act_type="relu")
    channels = STEM
    for filters, stride in SEPARABLE:
        x = normalized_convolution(sym, x, channels, 3, stride, groups=channels)
        x = sym.Activation(x, act_type="relu")
        x = normalized_convolution(sym, x, filters, 1, 1)
        x = sym.Activation(x, act_type="relu")
        channels = filters
    x = sym.Pooling(x, global_pool=True, kernel=(8, 8), pool_type="avg")
    return sym.FullyConnected(sym.Flatten(x), num_hidden=workload.classes)


def normalized_convolution(
    sym: Any, x: Any, filters: int, kernel: int, stride: int, groups: int = 1
) -> Any:
    x = sym.Convolution(
        x,
        num_filter=filters,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(kernel // 2, kernel // 2),
        num_group=groups,
        no_bias=True,
    )
    return sym.BatchNorm(x, fix_gamma=False, eps=1e-5, momentum=0.9)


def language_model(sym: Any, x: Any, workload: Workload) -> Any:
    width = RECURRENT_WIDTH
    x = sym.Embedding(x, input_dim=workload.classes, output_dim=width)
    x = sym.RNN(
        x,
        sym.Variable("recurrent", init='["uniform", {"scale": 0.05}]'),
        *(sym.Variable(name, __layout__="LNC") for name in workload.state_names),
        state_size=width,
        num_layers=RECURRENT_LAYERS,
        mode="lstm",
    )
    x = sym.Reshape(x, shape=(-1, width))
    return sym.FullyConnected(x, num_hidden=workload.classes)
