"""Train a LeNet-style network on the UCI handwritten digits, on two devices.

    python3 tools/run.py examples/train_digits.py

While the devices compute, the next batches are shifted at random in a thread.
Ends with exit status 1 if the accuracy on the test images stays below 98 %.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import numpy as np
import structlog
from digits import load_digits

import asyncmod as mx

BATCH_SIZE = 64
EPOCHS = 20
RATE = 0.05
TEST_IMAGES = 360
VALIDATION_IMAGES = 180
GOAL = 0.98
SEED = 7
ACTIVITIES = {
    "data": "waiting for data:",
    "compute": "computing:",
    "reduce": "reducing:",
    "metric": "metric:",
}


def lenet() -> mx.symbol.Symbol:
    x = mx.symbol.Variable("data")
    for filters in (32, 64):
        x = mx.symbol.Convolution(x, num_filter=filters, kernel=(3, 3), pad=(1, 1))
        x = mx.symbol.BatchNorm(x, fix_gamma=False)
        x = mx.symbol.Activation(x, act_type="relu")
        x = mx.symbol.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")
    x = mx.symbol.FullyConnected(mx.symbol.Flatten(x), num_hidden=128)
    x = mx.symbol.Activation(x, act_type="relu")
    x = mx.symbol.FullyConnected(x, num_hidden=10)
    return mx.symbol.SoftmaxOutput(x, name="softmax")


class RandomShift(mx.io.DataIter):
    """Digits in a new order every epoch, half of them moved by up to a pixel.

    Its `next` is not asynchronous, so it is called in a thread and holds nobody up.
    """

    def __init__(self, images: np.ndarray, digits: np.ndarray, batch_size: int) -> None:
        super().__init__(batch_size)
        self.images, self.digits = images, digits
        self.random = np.random.default_rng(SEED)
        self.provide_data = [mx.io.DataDesc("data", (batch_size, *images.shape[1:]))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (batch_size,))]
        self.reset()

    def reset(self) -> None:
        self.order = self.random.permutation(len(self.images))
        self.position = 0

    def next(self) -> mx.io.DataBatch:
        rows = self.order[self.position : self.position + self.batch_size]
        if len(rows) < self.batch_size:
            raise StopIteration
        self.position += self.batch_size
        images = self.shifted(self.images[rows])
        return mx.io.DataBatch([images], [self.digits[rows]], pad=0)

    def shifted(self, images: np.ndarray) -> np.ndarray:
        padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
        top, left = self.random.integers(0, 3, (2, len(images), 1, 1))
        stays = self.random.random((len(images), 1, 1)) < 0.5
        top, left = np.where(stays, 1, top), np.where(stays, 1, left)
        image = np.arange(len(images)).reshape(-1, 1, 1)
        pixels = np.arange(8)
        moved = padded[image, top + pixels.reshape(8, 1), left + pixels]
        return moved[:, np.newaxis]


class Progress:
    """Prints a line after each epoch: images per second, and what validation says."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.begin = time.perf_counter()

    def __call__(self, param: Any) -> None:
        now = time.perf_counter()
        [(name, value)] = param.eval_metric.get_name_value()
        rate = self.images / (now - self.begin)
        speed = f"{rate:7.0f} samples/s"
        print(f"epoch {param.epoch:2d}  {speed}  validation {name} {value:.4f}")
        self.begin = now


async def main() -> int:
    # The progress line says what `fit` would log.
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet)
    mx.seed(SEED)
    images, digits = load_digits(SEED)
    first, second = TEST_IMAGES, TEST_IMAGES + VALIDATION_IMAGES
    test = mx.io.NDArrayIter(images[:first], digits[:first], BATCH_SIZE)
    validation = mx.io.NDArrayIter(
        images[first:second], digits[first:second], BATCH_SIZE
    )
    shifted = RandomShift(images[second:], digits[second:], BATCH_SIZE)
    train = mx.io.PrefetchingIter(shifted)
    schedule = mx.lr_scheduler.FactorScheduler(step=80, factor=0.5, base_lr=RATE)
    async with train, mx.Module(lenet(), context=[mx.cpu(0), mx.cpu(1)]) as mod:
        history = await mod.fit(
            train,
            eval_data=validation,
            num_epoch=EPOCHS,
            optimizer="sgd",
            optimizer_params={
                "learning_rate": RATE,
                "momentum": 0.9,
                "wd": 1e-3,
                "lr_scheduler": schedule,
            },
            initializer=mx.init.Xavier(),
            eval_end_callback=Progress(len(shifted.order) // BATCH_SIZE * BATCH_SIZE),
        )
        [(_, accuracy)] = await mod.score(test, "acc")
    print(f"test accuracy {accuracy:.4f} (goal: {GOAL})")
    for key, activity in ACTIVITIES.items():
        print(f"{activity:>17} {history.timing[key]:6.2f} s")
    return 0 if accuracy >= GOAL else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
