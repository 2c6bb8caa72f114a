"""`import asyncmod` is light."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "heavy",
    ["numba", "llvmlite", "cupy", "scipy", "structlog", "asyncio", "pandas"]
    + ["rich", "matplotlib"],
)
def test_import_loads_nothing_heavy(heavy: str) -> None:
    """Nor does anything on the face, when it is loaded."""
    code = "import numpy, trio, sys; before = set(sys.modules); import asyncmod as mx; "
    code += "[getattr(mx, name) for name in mx.__all__]; "
    code += f"print({heavy!r} in set(sys.modules) - before)"
    assert run(code).strip() == "False"


def test_import_takes_little_beyond_numpy_and_trio() -> None:
    code = (
        "import numpy, trio, time; t = time.perf_counter(); import asyncmod; "
        "print(time.perf_counter() - t)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.1 * 10


def test_names_of_the_face() -> None:
    import asyncmod as mx

    for name in mx.__all__:
        assert hasattr(mx, name), name
    assert mx.mod.Module is mx.Module
    assert mx.opt is mx.optimizer
    assert mx.init is mx.initializer
    assert mx.sym is mx.symbol
    assert mx.name.Prefix is mx.sym.Prefix
    assert mx.cpu(1) == mx.Context("cpu", 1)
    assert str(mx.gpu(2)) == "gpu(2)"
    assert mx.__version__[0].isdigit()
    assert mx.model.load_checkpoint is mx.load_checkpoint
    code = "import asyncmod as mx; print(callable(mx.interop.mxnet.load_params))"
    assert run(code).strip() == "True"
    with pytest.raises(AttributeError, match="no attribute 'onnx_ml'"):
        _ = mx.interop.onnx_ml


def test_what_is_not_here_says_what_to_do() -> None:
    import asyncmod as mx

    with pytest.raises(AttributeError, match=r"no `mx.gluon`: .* mx\.Module"):
        _ = mx.gluon  # type: ignore[attr-defined]
    for images in ("image", "img", "recordio"):
        with pytest.raises(AttributeError, match="images and record files are not"):
            getattr(mx, images)
    with pytest.raises(AttributeError, match="no attribute 'modul'"):
        _ = mx.modul  # type: ignore[attr-defined]
    assert "Module" in dir(mx)


def test_functions_are_not_hidden_by_the_files_they_live_in() -> None:
    code = "import asyncmod as mx; mx.open_runtime; mx.bind; print(callable(mx.run))"
    assert run(code).strip() == "True"


def test_old_names() -> None:
    import asyncmod as mx

    assert mx.ndarray is mx.nd
    assert mx.rnd is mx.random
    assert mx.attribute.AttrScope is mx.AttrScope
    assert mx.base.MXNetError is mx.MXNetError is mx.errors.AsyncmodError
    assert mx.cpu_pinned(1) == mx.context.cpu(1)
    assert (mx.cpu(2).device_type, mx.cpu(2).device_id) == ("cpu", 2)
    assert mx.current_context() == mx.cpu(0)
    assert mx.num_gpus() == mx.context.num_gpus() == 0


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ("mx.gluon", "mx.symbol"),
        ("mx.autograd", "mx.bind"),
        ("mx.np", "import numpy"),
        ("mx.npx", "import numpy"),
        ("mx.contrib.quantization", "INT8"),
        ("mx.library.load", "C[+][+] operators"),
        ("mx.rtc", "run time"),
        ("mx.sym.contrib.quantize", "INT8"),
        ("mx.sym.sparse.nothing", "unknown operator"),
        ("mx.model.FeedForward", "mx.Module"),
        ("mx.test_utils", "numpy.testing"),
        ("mx.recordio.MXRecordIO", "not read yet"),
        ("mx.io.ImageRecordIter", "not read yet"),
        ("mx.operator.NumpyOp", "mx.operator.CustomOp"),
        ("mx.profiler", "`timing` of the History"),
    ],
)
def test_what_is_not_here_says_what_there_is(part: str, hint: str) -> None:
    import asyncmod as mx

    with pytest.raises(AttributeError, match=f"has no `mx[.].*{hint}"):
        eval(part, {"mx": mx})
