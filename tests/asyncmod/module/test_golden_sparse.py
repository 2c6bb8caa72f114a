"""Trainings with sparse data and gradients, recorded from MXNet 1.9.1 on one device."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod as mx
from tests.asyncmod.module.sparse_nets import embedding, factorization_machine
from tests.golden.arrays import HERE, arrays

CONTEXTS = {
    "cpu": [mx.cpu(0)],
    "reference": [mx.reference(0)],
    "cpu+cpu": [mx.cpu(0), mx.cpu(1)],
    # Memory spaces of their own: gradients cross to the host.
    "simulated+reference": [mx.Context("simulated", 0), mx.reference(0)],
}


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads((HERE / f"sparse/{name}.json").read_text()), arrays(
        f"sparse/{name}.npz"
    )


MACHINE, MACHINE_ARRAYS = read("factorization_machine")
TABLE, TABLE_ARRAYS = read("embedding")


async def train(
    module: mx.Module,
    data: mx.io.DataIter,
    case: dict[str, Any],
    epochs: int,
    recorded: dict[str, Any],
    prefix: str,
) -> None:
    first = {k[6:]: v for k, v in recorded.items() if k.startswith("first.")}
    async with module as mod:
        await mod.bind(data.provide_data, data.provide_label)
        await mod.init_params(arg_params=first)
        await mod.init_optimizer(
            optimizer=case["optimizer"], optimizer_params=case["settings"]
        )
        for _ in range(epochs):
            async for batch in data:
                await mod.forward(batch, is_train=True)
                outputs = await mod.get_outputs()
                await mod.backward()
                await mod.update()
            await data.reset()
        gradients = await mod.get_grads()
        parameters, _ = await mod.get_params()
    close = {"rtol": 1e-4, "atol": 2e-6}
    np.testing.assert_allclose(outputs[0], recorded[f"{prefix}.output"], **close)
    for name, value in parameters.items():
        np.testing.assert_allclose(
            value, recorded[f"{prefix}.{name}"], **close, err_msg=name
        )
    sparse_names = [k for k in recorded if k.startswith(f"{prefix}.rows.")]
    assert sparse_names
    for key in sparse_names:
        gradient = gradients[key.rpartition(".")[2]]
        np.testing.assert_array_equal(gradient.indices, recorded[key])
        rows = recorded[key.replace(".rows.", ".values.")]
        np.testing.assert_allclose(gradient.values, rows, **close, err_msg=key)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", MACHINE["cases"])
async def test_factorization_machine(name: str, context: str) -> None:
    recorded, size = MACHINE_ARRAYS, MACHINE["features"]
    rows = recorded["data"], recorded["indices"], recorded["indptr"]
    count = len(recorded["label"])
    data = mx.io.NDArrayIter(
        scipy.sparse.csr_matrix(rows, (count, size)),
        {"label": recorded["label"]},
        MACHINE["batch_size"],
        last_batch_handle="discard",
    )
    module = mx.Module(
        factorization_machine(size, MACHINE["factors"]),
        label_names=["label"],
        context=CONTEXTS[context],
    )
    case = MACHINE["cases"][name]
    await train(module, data, case, MACHINE["epochs"], recorded, name)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", TABLE["cases"])
async def test_embedding(name: str, context: str) -> None:
    recorded = TABLE_ARRAYS
    data = mx.io.NDArrayIter(recorded["data"], recorded["label"], TABLE["batch_size"])
    module = mx.Module(embedding(12, 4), context=CONTEXTS[context])
    await train(module, data, TABLE["cases"][name], TABLE["epochs"], recorded, name)
