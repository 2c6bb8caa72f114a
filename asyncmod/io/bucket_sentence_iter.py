"""BucketSentenceIter: batches of sentences of like length, for language models."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio
from numpy.typing import DTypeLike

from asyncmod import log, random
from asyncmod.errors import ArgumentError
from asyncmod.io.batch import DataBatch, DataDesc
from asyncmod.io.fairness import LARGE_COPY, checkpoint
from asyncmod.io.iterator import DataIter, State
from asyncmod.io.ndarray_iter import DataError
from asyncmod.nd import NDArray

Array = np.ndarray[Any, np.dtype[Any]]


class BucketSentenceIter(DataIter):
    """Batches for BucketingModule: sentences padded to the length of their bucket.

    A sentence goes to the smallest bucket that holds it. Labels are the data moved
    one to the left, so that each word is followed by the next. Every epoch draws a
    new order of the batches, and of the sentences inside each bucket; sentences that
    do not fill a batch are left out of that epoch.

    Args:
        sentences: Lists of word numbers, as `encode_sentences` makes them.
        batch_size: Sentences per batch.
        buckets: Lengths of the buckets; every length that at least `batch_size`
            sentences have unless given. Longer sentences are dropped with a warning.
        invalid_label: Fills sentences up, and stands in the last column of labels.
        data_name: Name of the data.
        label_name: Name of the labels.
        dtype: Of data and labels. float32 is exact up to 2**24.
        layout: "NT" for (batch, length), "TN" for (length, batch).
        seed: Seed of the orders; drawn from `mx.random` unless given.

    Raises:
        DataError: no bucket has a whole batch, or an argument cannot be.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        batch_size: int,
        buckets: Sequence[int] | None = None,
        invalid_label: int = -1,
        data_name: str = "data",
        label_name: str = "softmax_label",
        dtype: DTypeLike = "float32",
        layout: str = "NT",
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size)
        if batch_size < 1:
            raise DataError(f"`batch_size` must be at least 1, not {batch_size}")
        if layout not in ("NT", "TN"):
            raise DataError(
                f"`layout` must be 'NT' (batch major) or 'TN' (time major), not "
                f"{layout!r}"
            )
        if seed is not None and not 0 <= seed < 2**64:
            raise DataError(f"`seed` must be from 0 to 2**64 - 1, not {seed}")
        self.data_name, self.label_name = data_name, label_name
        self.invalid_label = invalid_label
        self.dtype = np.dtype(dtype)
        self.layout = layout
        if np.array(invalid_label).astype(self.dtype) != invalid_label:
            raise DataError(
                f"`invalid_label` must be a number of dtype {self.dtype}, not "
                f"{invalid_label}"
            )
        lengths = _bucket_lengths(sentences, batch_size, buckets)
        self._buckets = _fill(sentences, lengths, invalid_label, self.dtype)
        self.buckets = [bucket.length for bucket in self._buckets]
        """Lengths of the buckets that hold sentences, in increasing order."""
        self._batches = [
            (bucket, start)
            for bucket, content in enumerate(self._buckets)
            for start in range(0, len(content.data) - batch_size + 1, batch_size)
        ]
        if not self._batches:
            raise DataError(
                f"no bucket of {lengths} holds {batch_size} sentences: use a smaller "
                "batch_size, or fewer buckets"
            )
        self.default_bucket_key = self.buckets[-1]
        self.provide_data = [self._describe(data_name, self.default_bucket_key)]
        self.provide_label = [self._describe(label_name, self.default_bucket_key)]
        self._seed = random.draw_seed() if seed is None else seed
        self._many = 8 * len(sentences) > LARGE_COPY
        self._advancing = trio.Lock()
        self._epoch = 0
        self._cursor = 0
        self._order: _Order | None = None

    async def next(self) -> DataBatch:
        """The next batch; StopAsyncIteration at the end. Cancelling loses nothing."""
        await checkpoint()
        if self._many:
            async with self._advancing:
                batch = await trio.to_thread.run_sync(self._advance)
        else:
            batch = self._advance()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def reset(self) -> None:
        """Begin the next epoch, in a new order."""
        await checkpoint()
        self._epoch += 1
        self._cursor, self._order = 0, None

    def get_state(self) -> State:
        """Seed, epoch and position, as plain data."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "cursor": self._cursor,
            "batches": len(self._batches),
        }

    def set_state(self, state: State) -> None:
        """Continue from `state`.

        Raises:
            DataError: the state was saved over other sentences.
        """
        if state["batches"] != len(self._batches):
            raise DataError(
                f"the state was saved over {state['batches']} batches, and these "
                f"sentences make {len(self._batches)}: give the same sentences"
            )
        self._seed, self._epoch = state["seed"], state["epoch"]
        self._cursor, self._order = state["cursor"], None

    def _advance(self) -> DataBatch | None:
        if self._cursor == len(self._batches):
            return None
        if self._order is None:
            self._order = self._draw_order()
        number, start = self._batches[self._order.batches[self._cursor]]
        bucket = self._buckets[number]
        rows = self._order.rows[number][start : start + self.batch_size]
        data = bucket.data[rows]
        label = np.full_like(data, self.invalid_label)
        label[:, :-1] = data[:, 1:]
        self._cursor += 1
        return DataBatch(
            [self._laid_out(data)],
            [self._laid_out(label)],
            pad=0,
            index=bucket.index[rows],
            bucket_key=bucket.length,
            provide_data=[self._describe(self.data_name, bucket.length)],
            provide_label=[self._describe(self.label_name, bucket.length)],
        )

    def _draw_order(self) -> _Order:
        # Keyed by (seed, epoch), so that a position is all a state needs.
        bits = np.random.Philox(key=self._seed, counter=[0, 0, 0, self._epoch])
        generator = np.random.Generator(bits)
        return _Order(
            generator.permutation(len(self._batches)),
            [generator.permutation(len(bucket.data)) for bucket in self._buckets],
        )

    def _laid_out(self, array: Array) -> NDArray:
        if self.layout == "TN":
            array = np.ascontiguousarray(array.T)
        return array.view(NDArray)

    def _describe(self, name: str, length: int) -> DataDesc:
        shape = (self.batch_size, length)
        if self.layout == "TN":
            shape = (length, self.batch_size)
        return DataDesc(name, shape, self.dtype, self.layout)


def encode_sentences(
    sentences: Sequence[Sequence[Any]],
    vocab: Mapping[Any, int] | None = None,
    invalid_label: int = -1,
    invalid_key: Hashable = "\n",
    start_label: int = 0,
    unknown_token: Any = None,
) -> tuple[list[list[int]], dict[Any, int]]:
    """Replace words by numbers.

    Args:
        sentences: Lists of words.
        vocab: Number of each word. Without one it is made: words are numbered from
            `start_label` as they occur, passing over `invalid_label`.
        invalid_label: Number of `invalid_key` in a vocabulary that is made.
        invalid_key: Stands for `invalid_label` there.
        start_label: First number that is given out.
        unknown_token: With a `vocab`, stands for words that it lacks; it gets a number
            of its own if it has none.

    Returns:
        The sentences as numbers, and the vocabulary.

    Raises:
        ArgumentError: a word is not in `vocab`, and there is no `unknown_token`.
    """
    numbers = dict(vocab) if vocab is not None else {invalid_key: invalid_label}
    taken = {invalid_label} if vocab is None else {invalid_label, *numbers.values()}
    following = start_label

    def number(word: Any) -> int:
        nonlocal following
        if vocab is not None and word not in numbers:
            if unknown_token is None:
                raise ArgumentError(
                    f"Unknown token {word!r}: it is not in `vocab`; give an "
                    "`unknown_token` to stand for such words"
                )
            word = unknown_token
        if word not in numbers:
            while following in taken:
                following += 1
            numbers[word] = following
            following += 1
        return numbers[word]

    return [[number(word) for word in sentence] for sentence in sentences], numbers


@dataclass(frozen=True)
class _Bucket:
    """Sentences of one bucket: padded rows [sentence, length], and their numbers."""

    length: int
    data: Array
    index: Array


@dataclass(frozen=True)
class _Order:
    """An epoch's order of the batches, and of the rows inside each bucket."""

    batches: Array
    rows: list[Array]


def _bucket_lengths(
    sentences: Sequence[Sequence[int]], batch_size: int, buckets: Sequence[int] | None
) -> list[int]:
    if buckets is None:
        counts = Counter(len(sentence) for sentence in sentences)
        return sorted(n for n, count in counts.items() if n and count >= batch_size)
    if not all(length > 0 for length in buckets):
        raise DataError(f"`buckets` must be positive lengths, not {list(buckets)}")
    return sorted(set(buckets))


def _fill(
    sentences: Sequence[Sequence[int]],
    lengths: list[int],
    invalid_label: int,
    dtype: np.dtype[Any],
) -> list[_Bucket]:
    """Put every sentence into the smallest bucket that holds it; no empty buckets."""
    members: dict[int, list[int]] = {length: [] for length in lengths}
    dropped = 0
    for number, sentence in enumerate(sentences):
        place = bisect_left(lengths, len(sentence))
        if place == len(lengths):
            dropped += 1
        else:
            members[lengths[place]].append(number)
    if dropped and lengths:
        log.DEFAULT.warning(
            f"discarded {dropped} sentences longer than the largest bucket, "
            f"{lengths[-1]}"
        )
    buckets = []
    for length, numbers in members.items():
        if numbers:
            data = np.full((len(numbers), length), invalid_label, dtype)
            for row, number in zip(data, numbers, strict=True):
                try:
                    row[: len(sentences[number])] = sentences[number]
                except (ValueError, TypeError, OverflowError) as error:
                    raise DataError(
                        f"sentence {number} must be a list of numbers of dtype "
                        f"{dtype}: {error}; `encode_sentences` makes them of words"
                    ) from error
            buckets.append(_Bucket(length, data, np.array(numbers)))
    return buckets
