"""asyncmod: one step through the public, awaitable interface."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from measurement import Clock, Options, read_options, report
from workloads import LEARNING_RATE, MOMENTUM, WORKLOADS, symbol

import asyncmod as mx


async def main(options: Options) -> None:
    workload = WORKLOADS[options.workload]
    random = np.random.default_rng(0)
    data = random.standard_normal((workload.batch, *workload.shape), np.float32)
    label = random.integers(0, workload.classes, workload.batch).astype(np.float32)
    batch = mx.io.DataBatch([data], [label])
    net = symbol(options.workload, mx.symbol)
    contexts = [mx.cpu(index) for index in range(options.threads)]
    async with mx.Module(net, context=contexts) as mod:
        await mod.bind(
            [("data", data.shape)],
            [("softmax_label", label.shape)],
            for_training=options.training,
        )
        await mod.init_params(mx.init.Xavier())
        if options.training:
            await mod.init_optimizer(
                optimizer="sgd",
                optimizer_params={
                    "learning_rate": LEARNING_RATE,
                    "momentum": MOMENTUM,
                },
            )
        clock = Clock(options.seconds)
        for steps in clock:
            for _ in range(steps):
                if options.training:
                    await mod.step(batch)
                else:
                    await mod.forward(batch, is_train=False)
    report("asyncmod", version("asyncmod"), options, clock)


if __name__ == "__main__":
    mx.run(main, read_options())
