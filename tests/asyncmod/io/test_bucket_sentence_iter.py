"""BucketSentenceIter and encode_sentences."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import structlog

import asyncmod as mx
from asyncmod import errors, io
from asyncmod.io import bucket_sentence_iter
from asyncmod.testing import check_iterator

GENERATOR = np.random.default_rng(0)
SENTENCES = [
    [int(word) for word in GENERATOR.integers(1, 50, length)]
    for length in [2] * 5 + [3] * 7 + [5] * 6 + [8]
]


def make(**options: Any) -> io.BucketSentenceIter:
    given = {"batch_size": 3, "buckets": [3, 5, 6], "seed": 1, **options}
    with structlog.testing.capture_logs():
        return io.BucketSentenceIter(SENTENCES, **given)


@pytest.mark.parametrize("layout", ["NT", "TN"])
async def test_contract(layout: str) -> None:
    await check_iterator(lambda: make(layout=layout), epochs=3)


@pytest.mark.parametrize("layout", ["NT", "TN"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
async def test_rows_are_sentences_and_labels_the_next_words(
    layout: str, dtype: str
) -> None:
    iterator = make(layout=layout, dtype=dtype, invalid_label=0)
    seen = []
    async for batch in iterator:
        key = batch.bucket_key
        shape = (3, key) if layout == "NT" else (key, 3)
        assert batch.provide_data == [("data", shape)]
        assert batch.provide_label == [("softmax_label", shape)]
        assert batch.provide_data[0].layout == layout
        assert batch.data[0].shape == batch.label[0].shape == shape
        assert batch.data[0].dtype == batch.label[0].dtype == dtype
        assert batch.pad == 0
        data, label = batch.data[0], batch.label[0]
        if layout == "TN":
            data, label = data.T, label.T
        for number, row, following in zip(batch.index, data, label, strict=True):
            sentence = SENTENCES[number]
            padding = [0] * (key - len(sentence))
            assert row.tolist() == sentence + padding
            assert following.tolist() == [*sentence[1:], *padding, 0]
            assert key == (3 if len(sentence) <= 3 else 5)
            seen.append(int(number))
    assert len(seen) == len(set(seen)) == 18


async def test_every_epoch_has_its_own_order() -> None:
    iterator = make()
    epochs = []
    for _ in range(3):
        epochs.append([batch.index.tolist() async for batch in iterator])
        await iterator.reset()
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = make()
    assert [batch.index.tolist() async for batch in again] == epochs[0]


def test_descriptions_are_those_of_the_largest_bucket() -> None:
    iterator = make()
    assert iterator.buckets == [3, 5]  # nothing is in the bucket of length 6
    assert iterator.default_bucket_key == 5
    assert iterator.provide_data == [("data", (3, 5))]
    assert iterator.provide_label == [("softmax_label", (3, 5))]


def test_buckets_of_their_own() -> None:
    """Lengths that enough sentences have; longer sentences are dropped, and said so."""
    with structlog.testing.capture_logs() as logs:
        iterator = io.BucketSentenceIter(SENTENCES, 6, seed=0)
    assert iterator.buckets == [3, 5]
    assert [log["event"] for log in logs] == [
        "discarded 1 sentences longer than the largest bucket, 5"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "NTC"}, r"`layout` must be 'NT' .* not 'NTC'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"buckets": [0, 3]}, r"`buckets` must be positive lengths, not \[0, 3\]"),
        ({"batch_size": 50}, r"no bucket of \[3, 5, 6\] holds 50 sentences"),
        ({"batch_size": 50, "buckets": None}, "no bucket of"),
        ({"seed": -1}, "`seed` must be"),
        ({"dtype": "uint8"}, "`invalid_label` must be a number of dtype uint8, not -1"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(io.DataError, match=message):
        make(**options)


@pytest.mark.parametrize("sentence", [["a", "b"], [1, [2]], [1, 2**70], [1, None]])
def test_sentences_are_numbers(sentence: Any) -> None:
    with pytest.raises(io.DataError, match="sentence 1 must be a list of numbers"):
        io.BucketSentenceIter([[1, 2], sentence], 1, dtype="int32")


async def test_contract_where_orders_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_sentence_iter, "LARGE_COPY", 0)
    await check_iterator(make)
    places = []
    draw = io.BucketSentenceIter._draw_order

    def draw_order(self: Any) -> Any:
        places.append(threading.current_thread() is threading.main_thread())
        return draw(self)

    monkeypatch.setattr(io.BucketSentenceIter, "_draw_order", draw_order)
    await make().next()
    assert places == [False]


def test_empty_sentences_go_to_the_smallest_bucket() -> None:
    iterator = io.BucketSentenceIter([[], [], [1, 2], [3, 4]], 2, seed=0)
    assert iterator.buckets == [2]


def test_a_state_of_other_sentences() -> None:
    state = make().get_state()
    with pytest.raises(io.DataError, match="saved over 6 batches"):
        make(batch_size=5).set_state(state)


def test_encode_makes_a_vocabulary() -> None:
    encoded, vocab = io.encode_sentences([["a", "b", "a"], [], ["c"]], start_label=1)
    assert encoded == [[1, 2, 1], [], [3]]
    assert vocab == {"\n": -1, "a": 1, "b": 2, "c": 3}


def test_encode_passes_over_the_invalid_label() -> None:
    encoded, vocab = io.encode_sentences(
        [["a", "b", "c"]], invalid_label=1, invalid_key="-"
    )
    assert encoded == [[0, 2, 3]]
    assert vocab["-"] == 1


def test_encode_with_a_vocabulary() -> None:
    vocab = {"a": 0, "b": 5}
    assert io.encode_sentences([["b", "a"]], vocab) == ([[5, 0]], vocab)
    with pytest.raises(errors.ArgumentError, match="Unknown token 'c'"):
        io.encode_sentences([["c"]], vocab)
    encoded, extended = io.encode_sentences(
        [["c", "a", "d"]], vocab, unknown_token="<unk>"
    )
    assert encoded == [[1, 0, 1]]  # 0 is taken
    assert extended == {"a": 0, "b": 5, "<unk>": 1}
    assert vocab == {"a": 0, "b": 5}


def test_where_mxnet_has_them() -> None:
    assert mx.rnn.BucketSentenceIter is io.BucketSentenceIter
    assert mx.rnn.encode_sentences is io.encode_sentences
