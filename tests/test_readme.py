"""The example in README.md does what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_example_learns() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    [accuracy] = re.findall(r"'accuracy', (?:np\.float64\()?([\d.]+)", result.stdout)
    # Half would be chance.
    assert float(accuracy) > 0.95
