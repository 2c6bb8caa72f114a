"""Ask two questions about each image at once: which digit is it, and has it a hole?

    python3 tools/run.py examples/two_heads.py

The heads share their features; `Group` makes one net of them, and names tell each
metric which output and which label are its own. Ends with exit status 1 if either
answer is right on less than 95 % of the images that were held back.
"""

from __future__ import annotations

import sys

import numpy as np
from digits import load_digits

import asyncmod as mx

HOLED = (0, 6, 8, 9)
BATCH_SIZE = 50
EPOCHS = 30
TEST_IMAGES = 297
GOAL = 0.95
SEED = 7


def two_heads() -> mx.symbol.Symbol:
    x = mx.symbol.Flatten(mx.symbol.Variable("data"))
    x = mx.symbol.FullyConnected(x, num_hidden=64, name="features")
    x = mx.symbol.Activation(x, act_type="relu")
    digit = mx.symbol.FullyConnected(x, num_hidden=10, name="digit_scores")
    hole = mx.symbol.FullyConnected(x, num_hidden=1, name="hole_score")
    return mx.symbol.Group(
        [
            mx.symbol.SoftmaxOutput(digit, name="digit"),
            mx.symbol.LogisticRegressionOutput(hole, name="hole"),
        ]
    )


def right_side(label: np.ndarray, pred: np.ndarray) -> float:
    """How often a probability is on its label's side of one half."""
    return float(np.mean((pred > 0.5) == (label > 0.5)))


def metrics() -> mx.metric.CompositeEvalMetric:
    digit = mx.metric.Accuracy(
        name="digit", output_names=["digit_output"], label_names=["digit_label"]
    )
    hole = mx.metric.CustomMetric(
        right_side, "hole", output_names=["hole_output"], label_names=["hole_label"]
    )
    return mx.metric.CompositeEvalMetric([digit, hole])


def batches(images: np.ndarray, digits: np.ndarray) -> mx.io.NDArrayIter:
    holes = np.isin(digits, HOLED).astype(np.float32).reshape(-1, 1)
    labels = {"digit_label": digits, "hole_label": holes}
    return mx.io.NDArrayIter(images, labels, BATCH_SIZE, shuffle=True)


async def main() -> int:
    mx.seed(SEED)
    images, digits = load_digits(SEED)
    test = batches(images[:TEST_IMAGES], digits[:TEST_IMAGES])
    train = batches(images[TEST_IMAGES:], digits[TEST_IMAGES:])
    names = ["digit_label", "hole_label"]
    async with mx.Module(two_heads(), label_names=names) as mod:
        await mod.fit(
            train,
            eval_metric=metrics(),
            num_epoch=EPOCHS,
            optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
            initializer=mx.init.Xavier(),
        )
        scores = await mod.score(test, metrics())
    for name, share in scores:
        print(f"{name:>5} right: {share:.4f}")
    return 0 if min(share for _, share in scores) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
