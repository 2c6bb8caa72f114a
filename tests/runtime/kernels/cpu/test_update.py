"""Every update kernel against its definition: the same bits, whatever the length.

Kernels and definitions do the same float32 operations in the same order, but for norms
and means, whose sums are ordered differently.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.kernels.cpu.table import UPDATE_RULES
from runtime.ops.update import get_rule
from tests.runtime.kernels.cpu.conftest import Kernels, Memory

Floats = NDArray[np.float32]

# The scalars after lr, wd, rescale_grad and clip_gradient.
SCALARS: dict[str, tuple[float, ...]] = {
    "sgd": (0.9,),
    "nag": (0.9,),
    "signum": (0.9, 0.1),
    "dcasgd": (0.9, 0.4),
    "adam": (0.9, 0.99, 1e-8),
    "adamax": (0.9, 0.99),
    "nadam": (0.9, 0.99, 1e-3, 0.5, 0.6, 0.3, 0.01),
    "ftml": (0.6, 0.99, 1e-3, 0.4, 0.01),
    "adagrad": (1e-7,),
    "adadelta": (0.9, 1e-5),
    "rmsprop": (0.9, 1e-8, 1.0),
    "rmsprop_centered": (0.9, 0.8, 1e-3, -1.0),
    "ftrl": (0.05, 1.0),
    "lars": (0.9, 0.5, 0.1, 1.0),
    "lamb": (0.9, 0.99, 1e-6, 0.1, 0.01, 0.5, 1.0),
    "lbsgd": (0.9, 3.0, 1.0, 0.0),
    "sgld": (2.0**52 - 77, 2.0**32 - 9, 2.0**32 + 5),
    "groupadagrad": (1e-5,),
}
LENGTHS = (*range(1, 34), 47, 48, 63, 64, 65, 1000, 4099)
ELEMENTWISE = [name for name in UPDATE_RULES if name != "lamb"]


class Problem:
    """A weight, its states and the gradients of some devices, in guarded memory."""

    def __init__(
        self, name: str, n: int, devices: int, clip: float, columns: int = 0
    ) -> None:
        shape = (n // columns, columns) if columns else n
        self.memory = Memory()
        self.name = name
        self.rule = get_rule(name.removesuffix("_plain"))
        kept = self.rule.states[:-1] if name.endswith("_plain") else self.rule.states
        random = np.random.default_rng(n)

        def normal() -> Floats:
            return self.memory.array(random.normal(size=shape))  # type: ignore[return-value]

        self.weight = normal()
        # Positive; the first one is more than the squares of the others.
        self.states = [np.abs(normal(), out=normal()) for _ in kept]
        for state in self.states[:1]:
            state += 20
        self.gradients = [normal() for _ in range(devices)]
        common = (0.1, 0.03, 1 / 3, clip)
        self.hyper = self.memory.array((*common, *SCALARS[self.rule.name]), np.float64)

    def expected(self) -> list[Floats]:
        """New weight and states by the definition."""
        total = self.gradients[0]
        for gradient in self.gradients[1:]:
            total = total + gradient
        with np.errstate(all="ignore"):
            weight, states = self.rule.apply(
                self.weight, total, self.states, self.hyper
            )
        return [weight, *states]

    def run(self, kernels: Kernels, kernel: str, *bounds: int, **more: Any) -> None:
        """Run a kernel over the elements between each two bounds."""

        def table(arrays: list[Floats], begin: int) -> NDArray[Any]:
            addresses = [array.reshape(-1)[begin:].ctypes.data for array in arrays]
            return self.memory.array(addresses, np.int64)

        if kernel.removeprefix("update_") in UPDATE_RULES:
            more = {"copies": 0, "saved": 0, "before": 0} | more
        for begin, end in itertools.pairwise(bounds):
            kernels(
                kernel,
                tensors=table([self.weight, *self.states], begin),
                gradients=table(self.gradients, begin),
                devices=len(self.gradients),
                size=end - begin,
                **{"hyper": self.hyper} | more,
            )
        self.memory.check()

    @property
    def results(self) -> list[Floats]:
        return [self.weight, *self.states]


@pytest.mark.parametrize("clip", [-1.0, 0.3])
@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_kernel_gives_the_bits_of_its_definition(
    kernels: Kernels, name: str, devices: int, clip: float
) -> None:
    for n in LENGTHS:
        problem = Problem(name, n, devices, clip)
        before = problem.weight.copy()
        expected = problem.expected()
        problem.run(kernels, f"update_{name}", 0, n)
        np.testing.assert_array_equal(problem.results, expected)
        assert (problem.weight != before).any()


@pytest.mark.parametrize("name", ["adam", "sgd_plain"])
def test_what_changes_is_saved_and_counted(kernels: Kernels, name: str) -> None:
    for n in LENGTHS:
        problem = Problem(name, n, 1, 0.3)
        before = [array.copy() for array in problem.results]
        expected = problem.expected()
        copies = [problem.memory.nans(n) for _ in before]
        addresses = [copy.ctypes.data for copy in copies]
        saved = problem.memory.array([5], np.int64)
        problem.run(
            kernels,
            f"update_{name}",
            *(0, n),
            copies=problem.memory.array(addresses, np.int64),
            saved=saved,
            before=100,
        )
        np.testing.assert_array_equal(copies, before)
        np.testing.assert_array_equal(problem.results, expected)
        assert saved[0] == 100 + 4 * n


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_bounds_of_a_share_do_not_show(kernels: Kernels, name: str) -> None:
    whole, shared = (Problem(name, 100, 2, 0.3) for _ in range(2))
    whole.run(kernels, f"update_{name}", 0, 100)
    shared.run(kernels, f"update_{name}", 0, 1, 18, 50, 97, 100)
    np.testing.assert_array_equal(whole.results, shared.results)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_shows_and_zeros_do_not_harm(kernels: Kernels, name: str) -> None:
    problem = Problem(name, 40, 1, 0.3)
    for array in (problem.weight, *problem.states, *problem.gradients):
        array[3:6] = 0
    problem.gradients[0][20] = np.nan
    expected = problem.expected()
    problem.run(kernels, f"update_{name}", 0, 40)
    np.testing.assert_array_equal(problem.results, expected)
    assert np.isnan(problem.weight[20])
    assert np.isfinite(np.delete(problem.weight, 20)).all()


@pytest.mark.parametrize("name", ["ftrl", "ftml"])
def test_a_rate_of_zero_is_no_step(kernels: Kernels, name: str) -> None:
    problem = Problem(name, 40, 1, 0.3)
    problem.hyper[0] = 0
    before = [array.copy() for array in problem.results]
    problem.run(kernels, f"update_{name}", 0, 40)
    np.testing.assert_array_equal(problem.results, before)


@pytest.mark.parametrize("clip", [-1.0, 0.3])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        *(("lars", "sgd"), ("lars_plain", "sgd_plain"), ("lamb", "lamb")),
        *((name, name) for name in ("lbsgd", "lbsgd_plain")),
    ],
)
@pytest.mark.parametrize(
    "case", ["normal", "no weight", "no gradient", "fixed rate", "no epsilon"]
)
def test_norms_come_first(
    kernels: Kernels, case: str, name: str, kernel: str, devices: int, clip: float
) -> None:
    for n in (1, 5, 16, 33, 1000, 4099):
        problem = Problem(name, n, devices, clip)
        if case == "no weight":
            problem.weight[:] = 0
        if case == "no gradient":
            for gradient in problem.gradients:
                gradient[:] = 0
        if problem.rule.name == "lbsgd":
            problem.hyper[7] = 1
        if case == "fixed rate":  # LARS of a bias; LAMB without bounds of the norm
            problem.hyper[7 if name != "lamb" else 9 :] = 0 if name != "lamb" else -1
        if case == "no epsilon":  # for LBSGD: not the last gradient of a batch
            problem.hyper[6] = 0
        scaled = problem.memory.array(np.full(len(problem.hyper), np.nan), np.float64)
        expected = problem.expected()
        measure = f"measure_{problem.rule.name}"
        problem.run(kernels, measure, 0, n, scaled=scaled)
        problem.run(kernels, f"update_{kernel}", 0, n, hyper=scaled)
        np.testing.assert_allclose(problem.results, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["lbsgd", "lbsgd_plain"])
def test_a_batch_that_is_not_full_is_collected(kernels: Kernels, name: str) -> None:
    problem = Problem(name, 100, 2, 0.3)
    problem.hyper[6] = 0
    weight, expected = problem.weight.copy(), problem.expected()
    problem.run(kernels, f"update_{name}", 0, 100)
    np.testing.assert_array_equal(problem.results, expected)
    np.testing.assert_array_equal(problem.weight, weight)


@pytest.mark.parametrize("values", [0.0, -3.0, 1e-30, 1e30, np.inf, np.nan])
def test_the_rate_of_lbsgd_is_bounded(kernels: Kernels, values: float) -> None:
    """By 0.01 and 100; a NaN shows."""
    problem = Problem("lbsgd_plain", 20, 1, -1.0)
    problem.hyper[7] = 1
    for array in (problem.gradients[0], problem.states[0]):
        array[:] = values
    with np.errstate(all="ignore"):
        expected = problem.expected()
    scaled = problem.memory.array(problem.hyper, np.float64)
    problem.run(kernels, "measure_lbsgd", 0, 20, scaled=scaled)
    problem.run(kernels, "update_lbsgd_plain", 0, 20, hyper=scaled)
    np.testing.assert_allclose(problem.results, expected, rtol=2e-6)


@pytest.mark.parametrize("clip", [-1.0, 0.3])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_noise_is_that_of_the_definition(
    kernels: Kernels, devices: int, clip: float
) -> None:
    for n in (*LENGTHS, 1024):
        problem = Problem("sgld", n, devices, clip)
        expected = problem.expected()
        problem.run(kernels, "update_sgld", 0, n)
        np.testing.assert_array_equal(problem.results, expected)


@pytest.mark.parametrize("clip", [-1.0, 0.3])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_matrix_is_scaled_row_by_row(
    kernels: Kernels, devices: int, clip: float
) -> None:
    for columns in LENGTHS:
        problem = Problem("groupadagrad", 3 * columns, devices, clip, columns)
        problem.gradients[0][1] = 0
        expected = problem.expected()
        problem.run(kernels, "update_groupadagrad", 0, 3 * columns, columns=columns)
        np.testing.assert_allclose(problem.results, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_halves_are_widened_and_rounded(kernels: Kernels, devices: int) -> None:
    """A master keeps what float16 has no room for, or follows a weight that was set."""
    random = np.random.default_rng(devices)
    for n in LENGTHS:
        memory = Memory()
        exact = random.normal(size=n).astype(np.float32) * 10.0 ** random.integers(
            -7, 5, n
        )
        exact[: n // 5] *= 1e3  # some are too large
        with np.errstate(all="ignore"):
            weight = memory.array(exact, np.float16)
            gradients = [
                memory.array(random.normal(size=n) * 300, np.float16)
                for _ in range(devices)
            ]
            total = gradients[0]
            for gradient in gradients[1:]:
                total = total + gradient
        master, wide = memory.array(exact), memory.nans(n)
        weight[::3] = random.normal(size=len(weight[::3]))
        expected = np.where(np.arange(n) % 3 == 0, weight, master)
        other = memory.array(master)
        kernels("update_refine", weight=weight, master=other, size=n)
        np.testing.assert_array_equal(other, expected)
        kernels(
            "update_widen",
            weight=weight,
            master=master,
            gradients=memory.array([g.ctypes.data for g in gradients], np.int64),
            devices=devices,
            size=n,
            wide=wide,
        )
        np.testing.assert_array_equal(master, expected)
        np.testing.assert_array_equal(wide, total)
        kernels("update_narrow", master=master, weight=weight, size=n)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(weight, expected.astype(np.float16))
        memory.check()
