"""Apache MXNet 1.9.1: the Module API."""

from __future__ import annotations

import numpy as np
from inputs import batch_of
from measurement import Clock, Options, read_options, report
from workloads import LEARNING_RATE, MOMENTUM, WORKLOADS, symbol

# MXNet 1.9.1 still says np.bool, which NumPy 1.24 took away.
if not hasattr(np, "bool"):
    np.bool = bool

import mxnet as mx


def main(options: Options) -> None:
    workload = WORKLOADS[options.workload]
    data, label = map(mx.nd.array, batch_of(workload))
    batch = mx.io.DataBatch([data], [label])
    mod = mx.mod.Module(
        symbol(options.workload, mx.sym),
        context=mx.cpu(),
        state_names=workload.state_names,
    )
    mod.bind(
        [mx.io.DataDesc("data", data.shape, layout=workload.layout)],
        [mx.io.DataDesc("softmax_label", label.shape, layout=workload.layout)],
        for_training=options.training,
    )
    mod.init_params(mx.init.Xavier())
    if options.training:
        mod.init_optimizer(
            optimizer="sgd",
            optimizer_params={"learning_rate": LEARNING_RATE, "momentum": MOMENTUM},
        )
    clock = Clock(options.seconds)
    for steps in clock:
        for _ in range(steps):
            if options.training:
                mod.forward_backward(batch)
                mod.update()
            else:
                mod.forward(batch, is_train=False)
        mx.nd.waitall()
    report("mxnet", mx.__version__, options, clock)


if __name__ == "__main__":
    main(read_options())
