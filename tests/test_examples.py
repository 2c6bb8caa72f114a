"""The examples reach what they promise, as programs of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

LAST_LINES = {
    "autoencoder.py": r"squared error: net 0\.0\d+, linear 0\.0\d+",
    "factorization_machine.py": r"test accuracy 0\.9\d+ \(goal: 0\.95\), linear 0\.\d+",
    "language_model.py --quick": r"perplexity of the model: \d+\.\d",
    "python_loss.py": r"test accuracy 0\.9\d+ \(goal: 0\.95\)",
    "sequential_modules.py": r"test accuracy 0\.9\d+ \(goal: 0\.97\)",
    "stochastic_depth.py": r"test accuracy 0\.9\d+ \(goal: 0\.94\)",
    "two_heads.py": r" hole right: 0\.9\d+",
}
"""Commands, and what the last line that they print looks like."""


def run(command: str) -> str:
    """What an example prints; it must succeed, and complain about nothing."""
    name, *options = command.split()
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return result.stdout


def test_every_example_is_tested_and_listed() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    tested = {command.split()[0] for command in LAST_LINES}
    assert files == tested | {"digits.py", "train_digits.py"}
    listed = (EXAMPLES / "README.md").read_text()
    assert not [name for name in files if f"`{name}`" not in listed]


@pytest.mark.parametrize("command", LAST_LINES)
def test_example(command: str) -> None:
    last = run(command).rstrip().splitlines()[-1]
    assert re.search(LAST_LINES[command] + "$", last), last


def test_train_digits() -> None:
    printed = run("train_digits.py")
    assert len(re.findall(r"samples/s  validation accuracy", printed)) == 20
    [accuracy] = re.findall(r"test accuracy ([\d.]+)", printed)
    assert float(accuracy) >= 0.98
    for activity in ("waiting for data", "computing", "reducing", "metric"):
        assert re.search(rf"{activity}: +[\d.]+ s", printed)
