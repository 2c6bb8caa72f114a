"""Time every update rule alone: `python3 tools/bench/updates.py [options]`.

One parameter, one device, one thread; nanoseconds per element and bytes moved per
nanosecond, beside the NumPy definition and, where PyTorch has it, its fused optimizer.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

HYPER = {
    "sgd": (0.9,),
    "nag": (0.9,),
    "signum": (0.9, 0.0),
    "dcasgd": (0.9, 0.04),
    "adam": (0.9, 0.999, 1e-8),
    "adamax": (0.9, 0.999),
    "nadam": (0.9, 0.999, 1e-8, 0.45, 0.45, 0.4, 0.1),
    "ftml": (0.6, 0.999, 1e-8, 0.4, 0.1),
    "adagrad": (1e-7,),
    "adadelta": (0.9, 1e-5),
    "rmsprop": (0.9, 1e-8, -1.0),
    "rmsprop_centered": (0.9, 0.9, 1e-4, -1.0),
    "ftrl": (0.01, 1.0),
    "lars": (0.9, 0.001, 0.0, 1.0),
    "lamb": (0.9, 0.999, 1e-6, 0.1, 0.01, -1.0, -1.0),
    "lbsgd": (0.9, 1.0, 1.0, 1.0),
    "groupadagrad": (1e-5,),
    "sgld": (1.0, 2.0, 3.0),
}
"""What each rule takes after lr, wd, rescale_grad and clip_gradient."""

COLUMNS = 100
"""Of the matrix that a rule for matrices gets."""


def fastest(run: Callable[[], None], seconds: float) -> float:
    """Seconds of the fastest run, after a first one."""
    run()
    best, end = float("inf"), perf_counter() + seconds
    while perf_counter() < end:
        begin = perf_counter()
        run()
        best = min(best, perf_counter() - begin)
    return best


def ours(kind: str, name: str, elements: int, seconds: float) -> float:
    """Nanoseconds per element of a rule's update on a device of this kind."""
    import numpy as np

    from runtime.devices.factory import create_device
    from runtime.graph.plan import Layout
    from runtime.graph.update import plan_update
    from runtime.ops.update import get_rule

    rule, device = get_rule(name), create_device(kind)
    shape = (elements,) if rule.axes is None else (elements // COLUMNS, COLUMNS)
    layout = Layout.pack("parameter", [("w", shape, "float32")])
    plan = plan_update(
        name,
        layout,
        ("w",),
        states=rule.states,
        hyper=len(rule.hyper),
        whole=not rule.elementwise,
        native=device.native,
    )
    program = device.compile(plan)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for segment in ("parameter", "gradient.0"):
        program.write(segment, "w", values)
    program.write("hyper", "hyper", np.array([(1e-3, 1e-4, 1.0, -1.0, *HYPER[name])]))

    def run() -> None:
        program.launch("prepare")
        program.launch("update")
        program.wait()

    took = fastest(run, seconds)
    program.close()
    return took / elements * 1e9


def torch(elements: int, seconds: float) -> dict[str, float]:
    """The same of PyTorch's fused optimizers, by our names."""
    from libraries import PEERS, surroundings

    library = PEERS["torch"]
    script = Path(__file__).parent / "peers" / "torch_updates.py"
    command = [library.prepare(), script, str(elements), str(seconds)]
    result = subprocess.run(
        list(map(str, command)),
        env=surroundings(library, 1),
        capture_output=True,
        check=True,
        text=True,
    )
    times: dict[str, float] = json.loads(result.stdout)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench/updates.py", description=__doc__)
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=0.5, help="per measurement")
    parser.add_argument("--torch", action="store_true", help="PyTorch, too")
    arguments = parser.parse_args()
    elements, seconds = arguments.elements, arguments.seconds

    from runtime.ops.update import get_rule

    peer = torch(elements, seconds) if arguments.torch else {}
    print("| rule | ns / element | GB/s | NumPy | PyTorch, fused |")
    print("|---|---|---|---|---|")
    for name in HYPER:
        native = ours("cpu", name, elements, seconds)
        numpy = ours("reference", name, elements, seconds)
        moved = 4 * (3 + 2 * len(get_rule(name).states))
        theirs = f"{peer[name]:.2f}" if name in peer else ""
        speed = f"{native:.2f} | {moved / native:.0f} | {numpy:.1f}"
        print(f"| {name} | {speed} | {theirs} |", flush=True)


if __name__ == "__main__":
    main()
