"""Train a language model on the source of Python's own standard library.

    python3 tools/run.py examples/language_model.py [--quick]

Lines differ in length, so the net is unrolled to a few lengths, the buckets, which
share their weights. Prints the perplexity on lines that were held back: of guessing
by frequency, and after each epoch. Ends with exit status 1 if the last is not below a
quarter of the first (two thirds with `--quick`).
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import asyncmod as mx

MODULES = ("argparse", "subprocess", "tarfile", "threading", "typing", "zipfile")
TOKEN = re.compile(r"[A-Za-z_]\w*|\d+|[^\w\s]")
BUCKETS = [6, 10, 16, 24]
PADDING, UNKNOWN = 0, "<unknown>"
WORDS = 1000
HIDDEN = 128
BATCH_SIZE = 32
EPOCHS = 6
SEED = 7


def source_lines(count: int) -> list[list[str]]:
    """Lines of the standard library as lists of tokens, without comments."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [(folder / f"{name}.py").read_text("utf-8") for name in MODULES]
    lines = [TOKEN.findall(line) for text in texts for line in text.splitlines()]
    lines = [line for line in lines if 2 < len(line) <= BUCKETS[-1] and line[0] != "#"]
    order = np.random.default_rng(SEED).permutation(len(lines))
    return [lines[i] for i in order[:count]]


def vocabulary(lines: list[list[str]]) -> dict[Any, int]:
    """Numbers from 1 for the most frequent tokens; all others are one unknown."""
    counts = Counter(token for line in lines for token in line)
    known = [UNKNOWN, *(token for token, _ in counts.most_common(WORDS - 2))]
    return {token: number for number, token in enumerate(known, start=1)}


def unigram_perplexity(train: list[list[int]], test: list[list[int]]) -> float:
    """What frequencies alone achieve, on what the model has to guess."""
    counts = np.bincount([t for line in train for t in line[1:]], minlength=WORDS) + 1
    guessed = [token for line in test for token in line[1:]]
    return float(np.exp(-np.log(counts[guessed] / counts.sum()).mean()))


def unrolled(length: int) -> tuple[mx.symbol.Symbol, list[str], list[str]]:
    """The net for lines of this many tokens; `BucketingModule` calls it."""
    data, label = mx.symbol.Variable("data"), mx.symbol.Variable("softmax_label")
    x = mx.symbol.Embedding(data, input_dim=WORDS, output_dim=HIDDEN, name="embed")
    cell = mx.rnn.LSTMCell(HIDDEN, prefix="lstm_")
    x, _ = cell.unroll(length, inputs=x, merge_outputs=True)
    x = mx.symbol.Reshape(x, shape=(-1, HIDDEN))
    x = mx.symbol.FullyConnected(x, num_hidden=WORDS, name="guess")
    label = mx.symbol.Reshape(label, shape=(-1,))
    x = mx.symbol.SoftmaxOutput(
        x, label, use_ignore=True, ignore_label=PADDING, name="softmax"
    )
    return x, ["data"], ["softmax_label"]


async def main() -> int:
    quick = "--quick" in sys.argv
    mx.seed(SEED)
    lines = source_lines(3000 if quick else 9000)
    held_back = len(lines) // 10
    words = vocabulary(lines[held_back:])
    sentences, _ = mx.rnn.encode_sentences(lines, words, unknown_token=UNKNOWN)
    test, train = sentences[:held_back], sentences[held_back:]
    baseline = unigram_perplexity(train, test)
    print(f"perplexity by frequency: {baseline:.1f}")

    def batches(sentences: list[list[int]]) -> mx.rnn.BucketSentenceIter:
        return mx.rnn.BucketSentenceIter(
            sentences, BATCH_SIZE, BUCKETS, invalid_label=PADDING
        )

    train_data, test_data = batches(train), batches(test)
    module = mx.BucketingModule(unrolled, train_data.default_bucket_key)
    async with module:
        history = await module.fit(
            train_data,
            eval_data=test_data,
            eval_metric=mx.metric.Perplexity(ignore_label=PADDING),
            num_epoch=2 if quick else EPOCHS,
            optimizer="adam",
            optimizer_params={"learning_rate": 0.005},
            initializer=mx.init.Xavier(),
        )
    perplexity = history.epochs[-1]["validation-perplexity"]
    print(f"perplexity of the model: {perplexity:.1f}")
    return 0 if perplexity < baseline * (2 / 3 if quick else 1 / 4) else 1


if __name__ == "__main__":
    sys.exit(mx.run(main))
