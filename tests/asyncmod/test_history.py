"""History: rows that `fit` collects."""

from __future__ import annotations

from asyncmod.history import History


def test_rows_and_columns() -> None:
    history = History()
    history.add_batch(epoch=0, nbatch=0, accuracy=0.5)
    history.add_epoch(epoch=0, accuracy=0.5)
    history.add_epoch(epoch=1, accuracy=0.75, validation=0.7)
    assert history.batches == [{"epoch": 0, "nbatch": 0, "accuracy": 0.5}]
    assert history.to_dict() == {
        "epoch": [0, 1],
        "accuracy": [0.5, 0.75],
        "validation": [None, 0.7],
    }
    assert history.stopped_by is None
    assert History().to_dict() == {}
