"""Apache MXNet 1.9.1: the Module API."""

from __future__ import annotations

import numpy as np
from measurement import Clock, Options, read_options, report
from workloads import LEARNING_RATE, MOMENTUM, WORKLOADS, symbol

# MXNet 1.9.1 still says np.bool, which NumPy 1.24 took away.
if not hasattr(np, "bool"):
    np.bool = bool

import mxnet as mx


def main(options: Options) -> None:
    workload = WORKLOADS[options.workload]
    random = np.random.default_rng(0)
    shape = (workload.batch, *workload.shape)
    data = mx.nd.array(random.standard_normal(shape, np.float32))
    label = mx.nd.array(random.integers(0, workload.classes, workload.batch))
    batch = mx.io.DataBatch([data], [label])
    mod = mx.mod.Module(symbol(options.workload, mx.sym), context=mx.cpu())
    mod.bind(
        [("data", data.shape)],
        [("softmax_label", label.shape)],
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
