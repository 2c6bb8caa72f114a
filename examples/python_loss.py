"""Train with a loss that is written in Python: the multiclass hinge.

    python3 tools/run.py examples/python_loss.py

The net gives scores and knows no loss. A `PythonLossModule` after it gets scores and
labels and returns the gradient, here by NumPy; behind it may be anything. Ends with
exit status 1 if less than 95 % of the images that were held back are recognized.
"""

from __future__ import annotations

import sys

import numpy as np
from digits import load_digits

import asyncmod as mx

BATCH_SIZE = 50
EPOCHS = 30
MARGIN = 1.0
TEST_IMAGES = 297
GOAL = 0.95
SEED = 7


def scores() -> mx.symbol.Symbol:
    x = mx.symbol.Flatten(mx.symbol.Variable("data"))
    x = mx.symbol.FullyConnected(x, num_hidden=64)
    x = mx.symbol.Activation(x, act_type="relu")
    return mx.symbol.FullyConnected(x, num_hidden=10, name="scores")


def hinge_gradient(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the sum over wrong classes of max(0, MARGIN + score - right score)."""
    rows, right = np.arange(len(scores)), labels.astype(int)
    too_high = scores + MARGIN > scores[rows, right].reshape(-1, 1)
    gradient = too_high.astype(scores.dtype)
    gradient[rows, right] = 0
    gradient[rows, right] = -gradient.sum(axis=1)
    return gradient


async def main() -> int:
    mx.seed(SEED)
    images, digits = load_digits(SEED)
    first = TEST_IMAGES
    test = mx.io.NDArrayIter(images[:first], digits[:first], BATCH_SIZE)
    train = mx.io.NDArrayIter(images[first:], digits[first:], BATCH_SIZE, shuffle=True)
    chain = mx.SequentialModule()
    chain.add(mx.Module(scores(), label_names=None))
    loss = mx.PythonLossModule(grad_func=hinge_gradient)
    chain.add(loss, take_labels=True, auto_wiring=True)
    async with chain:
        await chain.fit(
            train,
            num_epoch=EPOCHS,
            optimizer_params={"learning_rate": 0.05, "momentum": 0.9},
            initializer=mx.init.Xavier(),
        )
        [(_, accuracy)] = await chain.score(test, "acc")
    print(f"test accuracy {accuracy:.4f} (goal: {GOAL})")
    return 0 if accuracy >= GOAL else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
