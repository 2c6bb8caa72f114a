"""Compress handwritten digits, 64 pixels each, to 8 numbers and back.

    python3 tools/run.py examples/autoencoder.py

What a net should give back is what it was given, so the images are the labels, too.
Afterwards the encoder alone, a part of the trained graph, makes the codes. Prints the
mean squared error on images that were held back, beside that of the best linear code
(principal components). Ends with exit status 1 if the net is not better.
"""

from __future__ import annotations

import sys

import numpy as np
from digits import load_digits

import asyncmod as mx

CODE = 8
HIDDEN = 128
BATCH_SIZE = 50
EPOCHS = 60
TEST_IMAGES = 297
SEED = 7


def autoencoder() -> mx.symbol.Symbol:
    x = mx.symbol.Variable("data")
    x = mx.symbol.FullyConnected(x, num_hidden=HIDDEN, name="encode1")
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.FullyConnected(x, num_hidden=CODE, name="code")
    x = mx.symbol.FullyConnected(x, num_hidden=HIDDEN, name="decode1")
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.FullyConnected(x, num_hidden=64, name="decode2")
    return mx.symbol.LinearRegressionOutput(x, name="image")


def linear_error(train: np.ndarray, test: np.ndarray) -> float:
    """Mean squared error of the projection on the first principal components."""
    mean = train.mean(axis=0)
    _, _, components = np.linalg.svd(train - mean, full_matrices=False)
    centered, axes = test - mean, components[:CODE]
    return float(np.mean((centered @ axes.T @ axes - centered) ** 2))


async def main() -> int:
    mx.seed(SEED)
    images = load_digits(SEED)[0].reshape(-1, 64)
    test, train = images[:TEST_IMAGES], images[TEST_IMAGES:]
    net = autoencoder()
    async with mx.Module(net, label_names=["image_label"]) as mod:
        await mod.fit(
            mx.io.NDArrayIter(
                train, train, BATCH_SIZE, shuffle=True, label_name="image_label"
            ),
            eval_metric="mse",
            num_epoch=EPOCHS,
            optimizer="adam",
            optimizer_params={"learning_rate": 0.003},
            initializer=mx.init.Xavier(),
        )
        parameters, _ = await mod.get_params()
        error = np.mean((await mod.predict(test) - test) ** 2)
    encoder = mx.Module(net.get_internals()["code_output"], label_names=None)
    async with encoder:
        await encoder.bind([("data", test.shape)], for_training=False)
        await encoder.set_params(parameters, {}, allow_extra=True)
        codes = await encoder.predict(test)
    linear = linear_error(train, test)
    print(f"codes of {codes.shape[1]} numbers for {codes.shape[0]} images")
    print(f"mean squared error: net {error:.4f}, linear {linear:.4f}")
    return 0 if error < linear else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
