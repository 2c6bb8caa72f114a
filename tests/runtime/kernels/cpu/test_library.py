"""The library: what it does without Numba, without a cache, and in threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.kernels.cpu.cache import ObjectCache
from runtime.kernels.cpu.library import load
from runtime.kernels.cpu.table import KERNELS, ROW, encode
from runtime.kernels.cpu.target import host_target

_FILL_AND_REPORT = """
    import sys
    import numpy as np
    from runtime.kernels.cpu.library import load
    from runtime.kernels.cpu.table import encode

    library = load()
    assert load() is library
    print("available", library.available)
    if library.available:
        y = np.ones(5, np.float32)
        row = encode("fill", {"y": y.ctypes.data, "bytes": 16})
        row[0] = library.address("fill")
        library.run(row.ctypes.data, 1)
        print("filled", y.tolist())
    print("numba imported", "numba" in sys.modules)
"""


def run_python(code, **environment):
    """Output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return result.stdout + result.stderr


def test_table_needs_no_numba():
    output = run_python(
        """
        import sys
        import runtime.kernels.cpu.table as table
        table.panels_size(3, 4)
        table.encode("fill", {"y": 0, "bytes": 0})
        print("numba imported", "numba" in sys.modules)
        """
    )
    assert "numba imported False" in output


def test_switched_off_by_the_environment():
    output = run_python(_FILL_AND_REPORT, ASYNCMOD_NUMBA="0")
    assert "available False" in output
    assert output.count("native kernels are not available") == 1
    assert "ASYNCMOD_NUMBA=0" in output
    assert "numba imported False" in output


def test_without_numba(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('broken numba')\n")
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    output = run_python(
        _FILL_AND_REPORT, PYTHONPATH=paths, ASYNCMOD_CACHE_DIR=str(tmp_path / "cache")
    )
    assert "available False" in output
    assert output.count("native kernels are not available") == 1
    assert "broken numba" in output


def test_numba_that_broke_after_the_first_kernels(tmp_path):
    cache = str(tmp_path / "cache")
    run_python(_FILL_AND_REPORT, ASYNCMOD_CACHE_DIR=cache)
    (tmp_path / "numba.py").write_text("raise ImportError('broken numba')\n")
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    code = """
        from runtime.kernels.cpu.library import load
        print("fill", load().address("fill") != 0)
        try:
            load().address("softmax")
        except Exception as error:
            print(type(error).__name__, error)
        """
    output = run_python(code, PYTHONPATH=paths, ASYNCMOD_CACHE_DIR=cache)
    assert "fill True" in output
    assert "DeviceError kernel 'softmax' must be compiled" in output


def test_numba_that_is_too_old():
    output = run_python(
        """
        from runtime.kernels.cpu import library
        library.metadata.version = lambda package: "0.60.1"
        print("available", library.load().available)
        """
    )
    assert "available False" in output
    assert "version 0.60.1 is older than 0.62" in output


def test_unavailable_library_explains_itself():
    output = run_python(
        """
        from runtime.kernels.cpu.library import load
        try:
            load().address("fill")
        except Exception as error:
            print(type(error).__name__, error)
        """,
        ASYNCMOD_NUMBA="0",
    )
    assert "DeviceError kernel 'fill': native kernels are not available" in output


def test_second_process_needs_no_compiler(tmp_path):
    first = run_python(_FILL_AND_REPORT, ASYNCMOD_CACHE_DIR=str(tmp_path / "new"))
    second = run_python(_FILL_AND_REPORT, ASYNCMOD_CACHE_DIR=str(tmp_path / "new"))
    for output in (first, second):
        assert "filled [0.0, 0.0, 0.0, 0.0, 1.0]" in output
        assert "warning" not in output
    assert "numba imported True" in first
    assert "numba imported False" in second


def test_cache_folder_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    spare = tmp_path / "temporary"
    spare.mkdir()
    output = run_python(
        _FILL_AND_REPORT, ASYNCMOD_CACHE_DIR=str(blocked), TMPDIR=str(spare)
    )
    assert "filled [0.0, 0.0, 0.0, 0.0, 1.0]" in output
    assert output.count("kernel cache folder is not writable") == 1
    assert any(spare.glob("asyncmod-*/fill-*.o"))


def test_no_cache_folder_at_all(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    output = run_python(
        """
        import tempfile
        from runtime.kernels.cpu import cache
        tempfile.gettempdir = lambda: cache._user_folder()
        print(cache.open_cache().folder)
        """,
        ASYNCMOD_CACHE_DIR=str(blocked),
    )
    assert "None" in output
    assert output.count("no writable kernel cache folder") == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_folder_that_others_may_write_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    spare = tmp_path / "temporary"
    spare.mkdir()
    output = run_python(
        _FILL_AND_REPORT, ASYNCMOD_CACHE_DIR=str(shared), TMPDIR=str(spare)
    )
    assert not list(shared.iterdir())
    assert "filled" in output


def test_damaged_object_is_not_used(tmp_path):
    cache = ObjectCache(tmp_path)
    assert cache.read("a.o") is None
    cache.write("a.o", b"code")
    assert cache.read("a.o") == b"code"
    path = tmp_path / "a.o"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.read("a.o") is None
    assert [file.name for file in tmp_path.iterdir()] == ["a.o"]


def test_addresses_are_the_same_in_all_threads(kernels):
    library = kernels.library
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append([library.address(name) for name in KERNELS])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({tuple(addresses) for addresses in found}) == 1
    assert len(set(found[0])) == len(KERNELS)


def test_unknown_kernel(kernels):
    with pytest.raises(KeyError, match="no kernel is named 'nothing'"):
        load().address("nothing")


def test_rows_run_in_order(kernels, memory):
    x, y = memory.array(np.ones(4)), memory.zeros(4)
    table = np.zeros((3, ROW), np.int64)
    names = ("fill", "scale_add", "scale_add")
    values = (
        {"y": y.ctypes.data, "bytes": 16},
        {"x": x.ctypes.data, "y": y.ctypes.data, "n": 4, "alpha": 2.5},
        {"x": y.ctypes.data, "y": y.ctypes.data, "n": 4, "alpha": 1.0},
    )
    y[:] = 9
    for row, name, value in zip(table, names, values, strict=True):
        row[:] = encode(name, value)
        row[0] = kernels.library.address(name)
    kernels.library.run(table.ctypes.data, 2)
    np.testing.assert_array_equal(y, 2.5)
    kernels.library.run(table.ctypes.data, 3)
    np.testing.assert_array_equal(y, 5.0)
    kernels.library.run(table.ctypes.data, 0)
    np.testing.assert_array_equal(y, 5.0)


def test_running_frees_the_interpreter(kernels, memory):
    x, y = memory.zeros(1 << 20), memory.zeros(1 << 20)
    row = encode(
        "scale_add", {"x": x.ctypes.data, "y": y.ctypes.data, "n": 1 << 20, "alpha": 1}
    )
    row[0] = kernels.library.address("scale_add")
    table = np.tile(row, (300, 1))
    span = []

    def work():
        begin = time.perf_counter()
        kernels.library.run(table.ctypes.data, len(table))
        span.extend((begin, time.perf_counter()))

    thread = threading.Thread(target=work)
    thread.start()
    ticks = []
    while thread.is_alive():
        ticks.append(time.perf_counter())
    thread.join()
    inside = [tick for tick in ticks if span[0] < tick < span[1]]
    # With the GIL held there would be none but those of the hand-over.
    assert len(inside) > 100


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("fill", {"y": 0}, "'fill' misses field 'bytes'"),
        ("fill", {"y": 0, "bytes": 0, "z": 1}, "'fill' has no field 'z'"),
        ("fill", {"y": 0, "bytes": 1.5}, "'bytes' of kernel 'fill' is 1.5"),
    ],
)
def test_wrong_fields(name, values, message):
    with pytest.raises(TypeError, match=message):
        encode(name, values)


def test_row_layout():
    row = encode("scale_add", {"x": 11, "y": 22, "n": 33, "alpha": 0.5})
    assert row.dtype == np.int64
    assert row.shape == (ROW,)
    assert row[:4].tolist() == [0, 11, 22, 33]
    assert row[4:5].view(np.float64)[0] == 0.5
    assert not row[5:].any()
    assert max(len(kernel.fields) for kernel in KERNELS.values()) < ROW


@pytest.mark.slow
def test_narrow_vectors():
    """Everything again with 8 lanes, on a processor that would use 16."""
    if host_target().lanes == 8:
        pytest.skip("the other tests use 8 lanes here")
    folder = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**os.environ, "ASYNCMOD_LANES": "8"},
        check=True,
        timeout=300,
    )
