"""The kernels' names and fields, and the rows of a plan's table.

A row is `ROW` int64 words: the address of the kernel's code, then its fields in
order. Addresses are byte addresses of float32 data unless said otherwise; strides
count elements. This module loads neither Numba nor the kernels, so that plans can
be written without them.

An *image* tensor is NHWC with channels padded to a multiple of 8. Its field `x` is
the address of pixel (0, 0) of image 0, and `x_image`, `x_row`, `x_pixel` are its
strides, so that there may be a halo around every image. Padding channels hold zero,
and every kernel keeps them so. The inputs of convolutions may be without padding
channels: x_pixel then is the number of channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.kernels.cpu.target import host_target

ROW = 40
CHANNEL_BLOCK = 8

Kind = Literal["address", "integer", "real"]


class Epilogue(IntEnum):
    """Activation that a kernel applies to its result."""

    NONE = 0
    RELU = 1
    SIGMOID = 2
    TANH = 3
    SOFTRELU = 4
    SOFTSIGN = 5


class WithNumber(IntEnum):
    """What `with_number` does to each element."""

    PLUS = 0
    MINUS = 1
    FROM = 2  # the number minus the element
    TIMES = 3


class RecurrentCell(IntEnum):
    """What a recurrent layer computes at each time step."""

    RNN_RELU = 0
    RNN_TANH = 1
    LSTM = 2
    GRU = 3


class JobWord(IntEnum):
    """Words of what `Library.run_two_phases` runs: int64, like rows.

    The meeting is two words: how many are missing, and whether one has failed.
    """

    FIRST_TABLE = 0
    FIRST_ROWS = 1
    SECOND_TABLE = 2
    SECOND_ROWS = 3
    MEETING = 4
    OUTCOME = 5
    CLOCK = 6  # the system's number of the clock
    COMPUTED = 7  # when the first table was done: seconds, nanoseconds
    MET = 9  # when the waiting ended


JOB_WORDS = 11


class Outcome(IntEnum):
    """How the meeting of a job went."""

    FAILED = 0  # another thread has failed: the second table was not run
    DONE = 1  # both tables were run
    WAITING = 2  # others are long in coming: the second table is still to be run


@dataclass(frozen=True)
class Field:
    """One word of a row."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Kernel:
    """A kernel's name and the fields of its rows, in order."""

    name: str
    fields: tuple[Field, ...]


def _parse(name: str, text: str) -> Kernel:
    """Kernel from a compact text.

    `name@` is an address, `name~` a real number, `name` an integer, `name[]` an
    image tensor, `name[:]` a strided operand of an elementwise kernel.
    """
    fields: list[Field] = []
    for word in text.split():
        if word.endswith("[]"):
            x = word[:-2]
            fields.append(Field(x, "address"))
            fields += [Field(f"{x}_{s}", "integer") for s in ("image", "row", "pixel")]
        elif word.endswith("[:]"):
            x = word[:-3]
            fields.append(Field(x, "address"))
            fields += [Field(f"{x}_{s}", "integer") for s in ("outer", "middle")]
        elif word.endswith("@"):
            fields.append(Field(word[:-1], "address"))
        elif word.endswith("~"):
            fields.append(Field(word[:-1], "real"))
        else:
            fields.append(Field(word, "integer"))
    return Kernel(name, tuple(fields))


UPDATE_RULES = (
    *("sgd", "sgd_plain", "nag", "nag_plain", "signum", "signum_plain", "dcasgd"),
    *("adam", "adamax", "nadam", "ftml", "adagrad", "adadelta"),
    *("rmsprop", "rmsprop_centered", "ftrl", "lamb", "lbsgd", "lbsgd_plain"),
)
"""Update rules that go element by element, after norms perhaps, with a kernel
`update_<rule>`; "plain" ones do without their last state."""

LAZY_RULES = ("sgd", "sgd_plain", "adam", "adagrad", "groupadagrad", "ftrl")
"""Those that also have a kernel `lazy_<rule>`, for some rows of a weight."""

_POOL = (
    "images height width in_height in_width channels kernel_h kernel_w "
    "stride_h stride_w pad_h pad_w"
)

_WINDOW = "stride_h stride_w dilate_h dilate_w pad_h pad_w kernel_h kernel_w"
_TAPS = "h_start h_step h_count w_start w_step w_count"

_UPDATE = "tensors@ gradients@ devices size hyper@"

_FIELDS = {
    # Matrices: C = A @ B with B in panels.
    "pack_panels": "b@ b_row b_column panels@ k n",
    "gemm": (
        "a@ a_row a_column panels@ panel_size panel_row c@ c_row m k n bias@ mask@ "
        "mask_row epilogue accumulate transposed"
    ),
    "column_sums": "x@ x_row sums@ m n accumulate",
    # Convolution.
    "conv_pack": (
        "weight@ scale@ panels@ out_channels in_channels kernel_h kernel_w transpose "
        f"{_TAPS}"
    ),
    "conv": (
        f"x[] residual[] y[] images height width in_height in_width {_WINDOW} "
        "in_channels out_channels panels@ bias@ statistics@ pivot@ epilogue "
        "accumulate by_pixel"
    ),
    "conv_weight_gradient": (
        f"x[] dy[] images height width in_height in_width {_WINDOW} "
        "in_channels out_channels gradient@ scratch@ accumulate"
    ),
    "depthwise_pack": f"weight@ scale@ panels@ channels kernel_h kernel_w {_TAPS}",
    "depthwise": (
        f"x[] residual[] y[] images height width {_WINDOW} channels panels@ bias@ "
        "statistics@ pivot@ epilogue"
    ),
    "depthwise_weight_gradient": (
        f"x[] dy[] images height width {_WINDOW} channels gradient@ scratch@ accumulate"
    ),
    "image_sums": "x[] images height width channels sums@ accumulate",
    # Pooling.
    "max_pool": f"x[] y[] index@ {_POOL} epilogue",
    "max_pool_backward": f"dy[] index@ y[] dx[] {_POOL} epilogue",
    "avg_pool": f"x[] y[] {_POOL} divisor_mode",
    "avg_pool_backward": f"dy[] dx[] {_POOL} divisor_mode",
    # Batch normalization.
    "batch_norm_statistics": "x[] images height width channels pivot@ statistics@",
    "batch_norm_finish": (
        "statistics@ pivot@ gamma@ beta@ fix_gamma eps~ momentum~ count channels "
        "mean@ inverse@ scale@ shift@ moving_mean@ moving_variance@ next_mean@ "
        "next_variance@"
    ),
    "batch_norm_scale": (
        "gamma@ beta@ fix_gamma eps~ moving_mean@ moving_variance@ channels mean@ "
        "inverse@ scale@ shift@"
    ),
    "batch_norm_fold": (
        "bias@ gamma@ beta@ fix_gamma eps~ moving_mean@ moving_variance@ channels "
        "scale@ shift@"
    ),
    "batch_norm_apply": (
        "x[] residual[] y[] images height width channels mean@ scale@ shift@ epilogue"
    ),
    "batch_norm_backward_sums": (
        "dy[] y[] x[] masked[] images height width channels mean@ sums@ epilogue"
    ),
    "batch_norm_backward_finish": (
        "sums@ inverse@ gamma@ fix_gamma count channels gamma_gradient@ "
        "beta_gradient@ k1@ k2@ k3@ accumulate"
    ),
    "batch_norm_backward_apply": (
        "x[] g[] dx[] images height width channels mean@ k1@ k2@ k3@ accumulate"
    ),
    # Elementwise.
    "activation": "x[:] y[:] outer middle inner epilogue",
    "activation_backward": "dy[:] y[:] dx[:] outer middle inner epilogue",
    "add": "a[:] b[:] y[:] outer middle inner",
    "multiply": "a[:] b[:] y[:] outer middle inner",
    "with_number": "x@ y@ n kind number~",
    "copy": "x[:] y[:] outer middle inner",
    "dropout": ("key@ x@ y@ row_stride run_stride rows runs length first node keep~"),
    "fill": "y@ bytes",
    "scale_add": "x@ y@ n alpha~",
    "set_value": "y@ count value~",
    # Tables and recurrent layers.
    "embedding": "index@ weight@ y@ count rows width",
    "embedding_backward": "index@ dy@ dweight@ count rows width accumulate",
    "embedding_backward_rows": (
        "index@ dy@ numbers@ values@ count rows width scratch@"
    ),
    "recurrent": (
        "gates@ panels@ panel_size panel_row bias@ state@ memory@ hidden@ hidden_row "
        "kept@ projection@ steps batch size cell reverse"
    ),
    "recurrent_backward": (
        "gates@ panels@ panel_size panel_row state@ memory@ hidden@ hidden_row kept@ "
        "dy@ dy_row dstate@ dmemory@ projection@ steps batch size cell reverse"
    ),
    # Softmax and its loss head.
    "softmax": "x@ y@ rows classes",
    "softmax_output_backward": (
        "y@ label@ dx@ dx_row rows classes first count sums@ accumulate grad_scale~ "
        "use_ignore ignore_label~ smooth_alpha~ normalization batch"
    ),
    # Updates.
    **{f"update_{rule}": f"{_UPDATE} copies@ saved@ before" for rule in UPDATE_RULES},
    "update_groupadagrad": f"{_UPDATE} columns",
    "update_sgld": _UPDATE,
    "share_rows": "gradient_rows@ devices part parts numbers@ scratch@",
    **{
        f"lazy_{rule}": (
            "tensors@ kept gradient_rows@ gradient_values@ devices columns hyper@ "
            "numbers@ scratch@"
        )
        for rule in LAZY_RULES
    },
    "update_widen": "weight@ master@ gradients@ devices size wide@",
    "update_refine": "weight@ master@ size",
    "update_narrow": "weight@ master@ size",
    "measure_lars": f"{_UPDATE} scaled@",
    "measure_lamb": f"{_UPDATE} scaled@",
    "measure_lbsgd": f"{_UPDATE} scaled@",
    # Layout.
    "permute": ("x@ stride0 stride1 stride2 stride3 y@ size0 size1 size2 size3"),
    "to_image": "x@ y@ y_image y_row y_pixel images channels height width",
    "from_image": "x[] y@ images channels height width",
}

KERNELS: dict[str, Kernel] = {
    name: _parse(name, text) for name, text in _FIELDS.items()
}


def encode(kernel_name: str, values: Mapping[str, int | float]) -> NDArray[np.int64]:
    """Write one row of a table, without the address of the code (word 0).

    Args:
        kernel_name: a key of `KERNELS`.
        values: a value for every field; an optional address that is absent is 0.

    Returns:
        `ROW` int64 words; reals are stored as their float64 bits.

    Raises:
        KeyError: there is no such kernel.
        TypeError: a field is missing, unknown, or an integer field got a float.
    """
    kernel = KERNELS[kernel_name]
    row = np.zeros(ROW, np.int64)
    unknown = values.keys() - {field.name for field in kernel.fields}
    if unknown:
        raise TypeError(f"kernel {kernel_name!r} has no field {sorted(unknown)[0]!r}")
    for word, field in enumerate(kernel.fields, start=1):
        if field.name not in values:
            raise TypeError(f"kernel {kernel_name!r} misses field {field.name!r}")
        value = values[field.name]
        if field.kind == "real":
            row[word] = np.float64(value).view(np.int64)
        elif isinstance(value, float):
            raise TypeError(
                f"field {field.name!r} of kernel {kernel_name!r} is {value!r}; "
                "it must be an integer"
            )
        else:
            row[word] = value
    return row


def padded(channels: int) -> int:
    """Channels that an image tensor stores for `channels` real ones."""
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK


def panel_width() -> int:
    """Columns P of one panel that `pack_panels` writes on this processor."""
    return host_target().panel


def panels_size(k: int, n: int) -> int:
    """Floats that `pack_panels` writes for a matrix of k rows and n columns."""
    width = panel_width()
    return -(-n // width) * width * k


def _vector_padded(channels: int) -> int:
    lanes = host_target().lanes
    return -(-channels // lanes) * lanes


def conv_panels_size(in_channels: int, out_channels: int, taps: int) -> int:
    """Floats that `conv_pack` writes for `taps` = h_count * w_count, either way.

    The larger of the two directions, so that the roles of the channels (which
    `transpose` swaps) cannot be mistaken.
    """
    return taps * max(
        in_channels * _vector_padded(out_channels),
        out_channels * _vector_padded(in_channels),
    )


def depthwise_size(channels: int, taps: int) -> int:
    """Floats that `depthwise_pack` writes for `taps` = h_count * w_count.

    And those of scratch that `depthwise_weight_gradient` needs.
    """
    return padded(channels) * taps


def conv_weight_scratch(in_channels: int, out_channels: int, taps: int) -> int:
    """Floats of scratch that `conv_weight_gradient` needs."""
    return padded(in_channels) * taps * _vector_padded(out_channels)
