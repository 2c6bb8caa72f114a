"""CSR inputs in shared memory: they grow, are bounded, and outlive their worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import asyncmod.symbol as sym
from runtime.devices.factory import create_device
from runtime.devices.process import csr
from runtime.devices.process.device import ProcessDevice
from runtime.devices.process.program import ProcessProgram
from runtime.errors import WorkerDied
from runtime.graph.compile import Request, compile_plan

ROWS, COLUMNS = 40, 50


@contextmanager
def started() -> Iterator[ProcessDevice]:
    device = create_device("reference", worker="process")
    assert isinstance(device, ProcessDevice)
    with closing(device):
        device.start()
        yield device


@contextmanager
def compiled(device: ProcessDevice) -> Iterator[ProcessProgram]:
    """x -> square -> dot w, with w the identity."""
    x = sym.Variable("x", stype="csr")
    net = sym.dot(sym.square(x), sym.Variable("w"))
    shapes = {"x": (ROWS, COLUMNS), "w": (COLUMNS, COLUMNS)}
    request = Request(net.graph, ("x",), shapes, csr=frozenset({"x"}))
    with closing(device.compile(compile_plan(request), slots=2)) as made:
        made.write("parameter", "w", np.eye(COLUMNS, dtype=np.float32))
        yield made


@pytest.fixture(scope="module")
def device() -> Iterator[ProcessDevice]:
    """For all tests in which nobody dies."""
    with started() as opened:
        yield opened


@pytest.fixture
def program(device: ProcessDevice) -> Iterator[ProcessProgram]:
    with compiled(device) as made:
        yield made


def matrix(elements: int, seed: int = 0) -> Any:
    """A matrix with so many elements, whole numbers."""
    generator = np.random.default_rng(seed)
    dense = np.zeros(ROWS * COLUMNS, np.float32)
    places = generator.choice(dense.size, elements, replace=False)
    dense[places] = generator.integers(1, 100, elements)
    return scipy.sparse.csr_matrix(dense.reshape(ROWS, COLUMNS))


def square(program: ProcessProgram, value: Any, slot: int = 0) -> Any:
    program.write("input", "x", value, slot)
    return run(program, slot)


def run(program: ProcessProgram, slot: int) -> Any:
    program.launch("predict", slot)
    (name,) = program.plan.output_names
    return program.read("output", name, slot)


def test_any_number_of_elements_in_few_blocks(program: ProcessProgram) -> None:
    sizes = []
    for elements in (0, 10, 12, 400, 0, 500, 599, ROWS * COLUMNS, 3):
        value = matrix(elements)
        np.testing.assert_array_equal(square(program, value), value.toarray() ** 2)
        assert (program.read("input", "x") != value).nnz == 0
        sizes.append(program.csr_inputs.blocks["x", 0].memory.nbytes)
    # Made for 0, 400 and ROWS * COLUMNS elements.
    assert sorted(sizes) == sizes
    assert len(set(sizes)) == 3
    assert list(program.csr_inputs.blocks) == [("x", 0)]


def test_memory_is_bounded_by_what_was_written(program: ProcessProgram) -> None:
    tensor = program.plan.csr["x"]
    for elements in (1, 700, 1900, ROWS * COLUMNS):
        square(program, matrix(elements))
        nbytes = program.csr_inputs.blocks["x", 0].memory.nbytes
        held = csr.CsrBlock.nbytes_of(tensor, elements, 4)
        full = csr.CsrBlock.nbytes_of(tensor, ROWS * COLUMNS, 4)
        assert held <= nbytes <= min(full, 2 * held)


def test_slots_are_apart(program: ProcessProgram) -> None:
    first, second = matrix(30, 1), matrix(60, 2)
    program.write("input", "x", first, 0)
    program.write("input", "x", second, 1)
    for slot, value in ((0, first), (1, second), (0, first)):
        np.testing.assert_array_equal(run(program, slot), value.toarray() ** 2)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_indexes_and_elements_of_other_dtypes(
    program: ProcessProgram, index: type, dtype: type
) -> None:
    value = matrix(20).astype(dtype)
    value.indices, value.indptr = (
        value.indices.astype(index),
        value.indptr.astype(index),
    )
    np.testing.assert_array_equal(square(program, value), value.toarray() ** 2)


def test_a_matrix_with_spare_room(program: ProcessProgram) -> None:
    value = matrix(20)
    expected = value.toarray() ** 2
    value.data = np.append(value.data, np.float32([np.nan, np.nan]))
    value.indices = np.append(value.indices, np.int32([0, 0]))
    np.testing.assert_array_equal(square(program, value), expected)


def kill(device: ProcessDevice) -> None:
    assert device.worker.process is not None
    os.kill(device.worker.process.pid, signal.SIGKILL)


def test_another_worker_finds_what_was_written() -> None:
    values = matrix(30, 1), matrix(60, 2)
    with started() as device, compiled(device) as program:
        for slot, value in enumerate(values):
            square(program, value, slot)
        kill(device)
        for slot, value in enumerate(values):
            np.testing.assert_array_equal(run(program, slot), value.toarray() ** 2)


def test_killed_before_it_was_shown_a_larger_matrix() -> None:
    value = matrix(300)
    with started() as device, compiled(device) as program:
        square(program, matrix(3))
        kill(device)
        np.testing.assert_array_equal(square(program, value), value.toarray() ** 2)


def test_a_death_that_is_to_be_raised_leaves_the_input_to_be_written_again() -> None:
    value = matrix(300)
    with started() as device, compiled(device.under("fail")) as program:
        square(program, matrix(3))
        kill(device)
        with pytest.raises(WorkerDied, match="during `csr` x"):
            program.write("input", "x", value)
        np.testing.assert_array_equal(square(program, value), value.toarray() ** 2)


def test_want_of_memory_names_the_input(
    program: ProcessProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    square(program, matrix(3))

    def refuse(nbytes: int) -> None:
        raise MemoryError(f"{nbytes} bytes are wanted")

    with monkeypatch.context() as patch:
        patch.setattr(csr, "SharedMemory", refuse)
        with pytest.raises(MemoryError, match="bytes are wanted") as caught:
            program.write("input", "x", matrix(300))
    assert caught.value.__notes__ == ["for `x`, a CSR input of 300 elements"]
    value = matrix(300)
    np.testing.assert_array_equal(square(program, value), value.toarray() ** 2)
