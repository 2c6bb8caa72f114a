"""The examples reach what they promise, as programs of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_train_digits() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "train_digits.py")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert len(re.findall(r"samples/s  validation accuracy", result.stdout)) == 20
    [accuracy] = re.findall(r"test accuracy ([\d.]+)", result.stdout)
    assert float(accuracy) >= 0.98
    for activity in ("waiting for data", "computing", "reducing", "metric"):
        assert re.search(rf"{activity}: +[\d.]+ s", result.stdout)
