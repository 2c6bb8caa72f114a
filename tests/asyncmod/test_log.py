"""The first line that is logged does not hold the event loop up."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
import numpy as np
import asyncmod as mx

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "structlog":
            print("imported in", threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Watch())

async def main():
    data = np.zeros((4, 3), np.float32)
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2)
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    mod = mx.Module(net, context=mx.reference(0))
    await mod.fit(mx.io.NDArrayIter(data, np.zeros(4), 2), num_epoch=1)

mx.run(main)
"""


def test_fit_imports_structlog_in_a_thread() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "imported in False" in result.stdout
    assert "imported in True" not in result.stdout
    assert "Train-accuracy" in result.stdout
