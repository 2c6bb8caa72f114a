"""A net of two modules, one after the other, each on a device of its own.

    python3 tools/run.py examples/sequential_modules.py

Features come from the first module and classes from the second; what one gives is
the data of the other, under another name (`auto_wiring`). The sequence is trained as
one net. Ends with exit status 1 if less than 97 % of the images that were held back
are recognized.
"""

from __future__ import annotations

import sys

from digits import load_digits

import asyncmod as mx

BATCH_SIZE = 50
EPOCHS = 20
TEST_IMAGES = 297
GOAL = 0.97
SEED = 7


def features() -> mx.symbol.Symbol:
    x = mx.symbol.Variable("data")
    x = mx.symbol.Convolution(x, num_filter=32, kernel=(3, 3), pad=(1, 1))
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
    return mx.symbol.Flatten(x, name="features")


def classes() -> mx.symbol.Symbol:
    x = mx.symbol.Variable("input")
    x = mx.symbol.FullyConnected(x, num_hidden=64)
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.FullyConnected(x, num_hidden=10)
    return mx.symbol.SoftmaxOutput(x, name="softmax")


async def main() -> int:
    mx.seed(SEED)
    images, digits = load_digits(SEED)
    first = TEST_IMAGES
    test = mx.io.NDArrayIter(images[:first], digits[:first], BATCH_SIZE)
    train = mx.io.NDArrayIter(images[first:], digits[first:], BATCH_SIZE, shuffle=True)
    chain = mx.SequentialModule()
    chain.add(mx.Module(features(), label_names=None, context=mx.cpu(0)))
    chain.add(
        mx.Module(classes(), data_names=["input"], context=mx.cpu(1)),
        take_labels=True,
        auto_wiring=True,
    )
    async with chain:
        await chain.fit(
            train,
            num_epoch=EPOCHS,
            optimizer_params={"learning_rate": 0.05, "momentum": 0.9},
            initializer=mx.init.Xavier(),
        )
        [(_, accuracy)] = await chain.score(test, "acc")
        parameters, _ = await chain.get_params()
    for name, array in parameters.items():
        print(f"{name:>23} {array.shape}")
    print(f"test accuracy {accuracy:.4f} (goal: {GOAL})")
    return 0 if accuracy >= GOAL else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
