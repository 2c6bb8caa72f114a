"""The wall clock jumps by days, in the program and its workers: nobody notices."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import asyncmod as mx
from tests.faults.training import differing, train

ROOT = Path(__file__).parents[2]
SHIM = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int calls;

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += 86400 * (calls++ % 5 - 2);
    return failed;
}
"""
# When a file was saved, for people to read.
MAY_ASK = {"asyncmod/checkpoint/model.py", "asyncmod/module/checkpointing.py"}


def test_a_training_does_not_see_it(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler, for a clock that jumps")
    (tmp_path / "shim.c").write_text(SHIM)
    shim = str(tmp_path / "shim.so")
    sources = [str(tmp_path / "shim.c"), "-o", shim]
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", *sources], check=True)
    env = os.environ | {"LD_PRELOAD": shim}
    jumps = "import time; print(abs(time.time() - time.time()) > 80_000)"
    asked = subprocess.run(
        [sys.executable, "-c", jumps], env=env, capture_output=True, text=True
    )
    assert asked.stdout == "True\n"
    options = [str(tmp_path), "--checkpoints", str(tmp_path), "--epochs", "1"]
    command = [sys.executable, "-m", "tests.faults.training", *options]
    ended = subprocess.run(
        [*command, "--heartbeat", "5"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "takes over" not in ended.stdout + ended.stderr
    with np.load(tmp_path / "result.npz") as result:
        assert differing(dict(result), mx.run(train, "thread", 1)) == []


def test_only_dates_come_from_the_wall_clock() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for package in ("asyncmod", "runtime")
        for path in (ROOT / package).rglob("*.py")
        if any(map(asks_the_wall_clock, ast.walk(ast.parse(path.read_text()))))
    }
    assert asking == MAY_ASK


def asks_the_wall_clock(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        return node.module == "datetime" or (
            node.module == "time" and not names.isdisjoint({"time", "time_ns"})
        )
    return isinstance(node, ast.Attribute) and (
        ast.unparse(node) in ("time.time", "time.time_ns", "datetime.datetime")
    )
