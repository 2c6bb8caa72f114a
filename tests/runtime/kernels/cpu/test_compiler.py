"""How kernels are compiled leaves Numba as it was."""

from __future__ import annotations

from typing import Any

import pytest

config = pytest.importorskip("numba").config

SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")


def settings() -> list[Any]:
    return [getattr(config, name) for name in SETTINGS]


def test_numba_optimizes_other_functions_as_before(monkeypatch):
    from runtime.kernels.cpu import compiler

    seen = []

    def broken(*_: Any, **__: Any) -> None:
        seen.append(settings())
        raise ImportError("no compiler")

    before = settings()
    monkeypatch.setattr(compiler, "cfunc", broken)
    with pytest.raises(ImportError, match="no compiler"):
        compiler.compile_function("vm", None)
    assert seen == [[0, 0, 0]]
    assert settings() == before
    assert before[0] > 0
