"""Every test that docs/reliability.md names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFAULT = "tests/asyncmod/checkpoint/"  # of the table that names only files


def test_every_test_that_is_named_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    shorts = dict(re.findall(r"`([A-Z])` (?:stands )?for `([^`]+)`", text))
    assert len(shorts) == 4
    named = re.findall(r"`(?:([A-Z])\b/?)?([\w/]+\.py)?(?:::(test_\w+))?`", text)
    found = [
        (shorts.get(short, "") + file, test)
        for short, file, test in named
        if file or test
    ]
    assert len(found) > 30
    for file, test in found:
        path = ROOT / (file if file.startswith("tests/") else DEFAULT + file)
        assert path.exists(), path
        assert f"def {test}" in path.read_text(), f"{path} has no {test}"
