"""One training step on the CPU device and on the reference."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings

from runtime.devices.factory import create_device
from runtime.graph.plan import NativeRow
from tests.conformance.nets import Net, results

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def check(net: Net, *, native: bool = True) -> None:
    """Train one step with guard zones on both devices and compare everything."""
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), True, guards=64)
        net.load(program)
        for segment in ("gradient", "input_gradient"):
            if segment in program.plan.tensors:
                program.fill(segment, 0.25)  # what request "add" adds to
        for section in ("forward", "backward", "commit"):
            program.launch(section)  # type: ignore[arg-type]
        found.append(results(program))
        if kind == "cpu" and native:
            rows = [r for s in program.plan.sections.values() for r in s]
            others = [r for r in rows if not isinstance(r, NativeRow)]
            assert not [r for r in others if r.operator not in ("0", "=")]
    for key, expected in found[1].items():
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(
            found[0][key], expected, rtol=2e-4, atol=1e-5 * scale, err_msg=key
        )


def same(net: Net, native: bool = True) -> None:
    """The check of others, with equal numbers rather than close ones."""
    check(net, native=native)
    found = []
    for kind in ("cpu", "reference"):
        program = net.compile(create_device(kind), True)
        net.load(program)
        program.launch("forward")
        program.launch("backward")
        found.append(results(program))
    for name, expected in found[1].items():
        np.testing.assert_array_equal(found[0][name], expected, err_msg=name)
