"""Tell even digits from odd ones by features that are on or off, as sparse data.

    python3 tools/run.py examples/factorization_machine.py

Each of 64 pixels is white, gray or black, which makes 192 features, of which an image
has some thirty: those of its pixels that are not white. A linear model adds up what
each feature says by itself. A factorization machine (Rendle, "Factorization
Machines", 2010) gives each feature a vector, too, and adds the product of the vectors
of any two features that meet. Batches are CSR matrices, gradients have the rows of the
features that a batch has, and so the updates cost what these cost. Prints how often
either model is right on images that were held back; ends with exit status 1 if the
machine is not clearly better.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.sparse
from digits import load_digits

import asyncmod as mx

PIXELS, LEVELS = 64, 3
FACTORS = 8
BATCH_SIZE = 50
EPOCHS = 20
TEST_IMAGES = 297
GOAL = 0.95
SEED = 7


def load_features() -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Which features each image has, as ones, and whether its digit is even."""
    images, digits = load_digits(SEED)
    levels = np.rint(images.reshape(-1, PIXELS) * (LEVELS - 1)).astype(int)
    image, pixel = np.nonzero(levels)
    feature = pixel * LEVELS + levels[image, pixel]
    ones = np.ones(len(image), np.float32)
    shape = (len(images), PIXELS * LEVELS)
    features = scipy.sparse.csr_matrix((ones, (image, feature)), shape)
    return features, (digits % 2 == 0).astype(np.float32).reshape(-1, 1)


def model(factors: int) -> mx.symbol.Symbol:
    """A factorization machine; without factors a linear model."""
    features = PIXELS * LEVELS
    x = mx.symbol.Variable("data", stype="csr")
    weight = mx.symbol.Variable("weight", shape=(features, 1), stype="row_sparse")
    bias = mx.symbol.Variable("bias", shape=(1,))
    score = mx.symbol.broadcast_add(mx.symbol.dot(x, weight), bias)
    if factors:
        shape = (features, factors)
        v = mx.symbol.Variable("vectors_weight", shape=shape, stype="row_sparse")
        # The sum of all products is half of: the square of the sum, less the squares.
        sums = mx.symbol.dot(x, v)
        squared = mx.symbol.sum(mx.symbol.square(sums), axis=1, keepdims=True)
        lengths = mx.symbol._internal._square_sum(v, axis=1, keepdims=True)
        squares = mx.symbol.dot(mx.symbol.square(x), lengths)
        score = score + 0.5 * (squared - squares)
    return mx.symbol.LogisticRegressionOutput(score, name="even")


async def accuracy(factors: int) -> float:
    """Train on most images; the share of the others that the model is right about."""
    mx.seed(SEED)
    features, even = load_features()
    train = mx.io.NDArrayIter(
        features[TEST_IMAGES:],
        even[TEST_IMAGES:],
        BATCH_SIZE,
        shuffle=True,
        last_batch_handle="discard",
        label_name="even_label",
    )
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = model(factors)
    async with mx.Module(net, label_names=["even_label"], context=contexts) as mod:
        await mod.fit(
            train,
            eval_metric="mse",
            num_epoch=EPOCHS,
            optimizer="adam",
            optimizer_params={"learning_rate": 0.02},
            initializer=mx.init.Normal(0.05),
        )
        found = await mod.predict(features[:TEST_IMAGES])
    return float(np.mean((found > 0.5) == even[:TEST_IMAGES]))


async def main() -> int:
    features, _ = load_features()
    count, possible = features.shape
    print(
        f"{features.nnz / count:.1f} of {possible} features in each of {count} images"
    )
    linear, machine = await accuracy(0), await accuracy(FACTORS)
    print(f"test accuracy {machine:.3f} (goal: {GOAL}), linear {linear:.3f}")
    return 0 if machine >= GOAL and machine > linear else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
