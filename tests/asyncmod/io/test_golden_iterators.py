"""Iterators against MXNet 1.9.1, batch by batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from asyncmod import io

GOLDEN = Path(__file__).parents[2] / "golden" / "io"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def pick(config: dict[str, Any], arrays: Any, field: str) -> Any:
    names = config.get(field)
    if names is None:
        return None
    chosen = {name: arrays[f"in.{name}"] for name in names}
    if config.get("as") == "list":
        return list(chosen.values())
    return chosen if "as" not in config else chosen[names[0]]


def make(config: dict[str, Any], arrays: Any) -> Any:
    kind = config["type"]
    if "paths" in config:
        files = {name: GOLDEN.parent / path for name, path in config["paths"].items()}
        return getattr(io, kind)(**files, **config["kwargs"])
    if kind == "NDArrayIter":
        data, label = pick(config, arrays, "data"), pick(config, arrays, "label")
        return io.NDArrayIter(data, label, **config["kwargs"])
    if kind == "ResizeIter":
        inner = make(config["inner"], arrays)
        internal = config.get("reset_internal", True)
        return io.ResizeIter(inner, config["size"], internal)
    inners = [make(inner, arrays) for inner in config["inner"]]
    renames = config.get("rename_data"), config.get("rename_label")
    return io.PrefetchingIter(inners, *renames)


def described(descriptions: Any) -> list[list[Any]]:
    return [[d.name, list(d.shape), d.dtype.name, d.layout] for d in descriptions]


def expected_pad(config: dict[str, Any], pad: int) -> int:
    # MXNet reports the rows carried over as padding; they are real.
    handle = config.get("kwargs", {}).get("last_batch_handle")
    return 0 if handle == "roll_over" else pad


def check_equal(config: dict[str, Any], got: Any, expected: Any) -> None:
    # MXNet's own reading of decimal numbers may err in the last bit; ours is exact.
    if "paths" in config and expected.dtype == np.float32:
        np.testing.assert_array_max_ulp(got, expected, maxulp=1)
    else:
        np.testing.assert_array_equal(got, expected)


def check_sparse(matrix: Any, arrays: Any, batch: str) -> None:
    for field, name in (("indptr",) * 2, ("indices",) * 2, ("data", "values")):
        got = getattr(matrix, field)
        check_equal({"paths": ()}, got, arrays[f"{batch}.{name}"])


@pytest.mark.parametrize("name", NAMES)
async def test_same_batches_as_mxnet(name: str) -> None:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    arrays = np.load(GOLDEN / f"{name}.npz")
    expect = config["expect"]
    async with make(config, arrays) as iterator:
        assert described(iterator.provide_data) == expect["provide_data"]
        assert described(iterator.provide_label) == expect["provide_label"]
        for epoch, batches in enumerate(expect["epochs"]):
            if epoch:
                await iterator.reset()
            for number, expected in enumerate(batches):
                batch = await iterator.next()
                assert batch.pad == expected_pad(config, expected["pad"])
                if "paths" in config:  # arrays in memory have no index in MXNet
                    index = batch.index.tolist()
                    assert index[: len(expected["index"])] == expected["index"]
                for field in ("data", "label"):
                    got = getattr(batch, field)
                    for i, array in enumerate(got):
                        key = f"exp.e{epoch}.b{number}.{field}.{i}"
                        if scipy.sparse.issparse(array):
                            check_sparse(array, arrays, f"exp.e{epoch}.b{number}")
                            array = array.toarray()
                        if config.get("mask_pad"):  # the others were not recorded
                            array = array[: len(arrays[key])]
                        check_equal(config, array, arrays[key])
                        assert array.dtype == arrays[key].dtype
                    assert f"exp.e{epoch}.b{number}.{field}.{len(got)}" not in arrays
            if str(epoch) not in config.get("stop_after", {}):
                for _ in range(2):
                    with pytest.raises(StopAsyncIteration):
                        await iterator.next()
