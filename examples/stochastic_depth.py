"""Stochastic depth: residual blocks that training skips at random.

    python3 tools/run.py examples/stochastic_depth.py

Every block is a module, and modules are composed by hand: `StochasticDepth` calls
`forward` and `backward` of the blocks that take part in a batch and leaves the others
out, work and all. `inputs_need_grad=True` makes a block give the gradient that the
block before it needs. Method: Huang et al., "Deep Networks with Stochastic Depth"
(2016). Ends with exit status 1 if less than 94 % of the images that were held back are
recognized.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import numpy as np
from digits import load_digits

import asyncmod as mx

BLOCKS = 6
SKIPPED = 0.5  # how often the last block is; the share grows from block to block
WIDTH = 64
BATCH_SIZE = 50
EPOCHS = 30
TEST_IMAGES = 297
GOAL = 0.94
SEED = 7
SETTINGS = {"learning_rate": 0.02, "momentum": 0.9}


def block() -> mx.symbol.Symbol:
    """What is added to a block's input."""
    x = mx.symbol.Variable("data")
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.FullyConnected(x, num_hidden=WIDTH)
    x = mx.symbol.Activation(x, act_type="relu")
    return mx.symbol.FullyConnected(x, num_hidden=WIDTH)


def head() -> mx.symbol.Symbol:
    x = mx.symbol.FullyConnected(mx.symbol.Variable("data"), num_hidden=10)
    return mx.symbol.SoftmaxOutput(x, name="softmax")


class StochasticDepth:
    """Residual blocks and a classifier; enter it before anything else."""

    def __init__(self) -> None:
        self.blocks = [mx.Module(block(), label_names=None) for _ in range(BLOCKS)]
        self.head = mx.Module(head())
        self.stays = 1 - SKIPPED * np.arange(1, BLOCKS + 1) / BLOCKS
        self.random = np.random.default_rng(SEED)

    async def __aenter__(self) -> StochasticDepth:
        self.stack = AsyncExitStack()
        shapes = [("data", (BATCH_SIZE, WIDTH))]
        labels = [("softmax_label", (BATCH_SIZE,))]
        for module in [*self.blocks, self.head]:
            await self.stack.enter_async_context(module)
            await module.bind(
                shapes, labels if module is self.head else None, inputs_need_grad=True
            )
            await module.init_params(mx.init.Xavier())
            await module.init_optimizer(optimizer_params=SETTINGS)
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.stack.aclose()

    async def step(self, batch: mx.io.DataBatch) -> int:
        """Train on a batch; returns how many blocks took part."""
        active = [
            block
            for block, stays in zip(self.blocks, self.stays, strict=True)
            if self.random.random() < stays
        ]
        x = batch.data[0]
        for module in active:
            await module.forward(mx.io.DataBatch([x]), is_train=True)
            x = x + (await module.get_outputs())[0]
        await self.head.forward(mx.io.DataBatch([x], batch.label), is_train=True)
        await self.head.backward()
        [gradient] = await self.head.get_input_grads()
        for module in reversed(active):
            await module.backward([gradient])
            # The input went around the block as well as through it.
            gradient = gradient + (await module.get_input_grads())[0]
        for module in [*active, self.head]:
            await module.update()
        return len(active)

    async def predict(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities; a block counts as much as it was there in training."""
        x = images
        for module, stays in zip(self.blocks, self.stays, strict=True):
            x = x + np.float32(stays) * await module.predict(x)
        return await self.head.predict(x)


async def main() -> int:
    mx.seed(SEED)
    images, digits = load_digits(SEED)
    images = images.reshape(-1, WIDTH)
    train = mx.io.NDArrayIter(
        images[TEST_IMAGES:],
        digits[TEST_IMAGES:],
        BATCH_SIZE,
        shuffle=True,
        last_batch_handle="discard",
    )
    active = []
    async with StochasticDepth() as net:
        for _ in range(EPOCHS):
            async for batch in train:
                active.append(await net.step(batch))
            await train.reset()
        probabilities = await net.predict(images[:TEST_IMAGES])
    accuracy = np.mean(probabilities.argmax(axis=1) == digits[:TEST_IMAGES])
    print(f"blocks at work in training: {np.mean(active):.2f} of {BLOCKS}")
    print(f"test accuracy {accuracy:.4f} (goal: {GOAL})")
    return 0 if accuracy >= GOAL else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
