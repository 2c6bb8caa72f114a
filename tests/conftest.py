"""What every test gets: a check that it left nothing behind, and calm Hypothesis.

At the end of a run: what each part has taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import hypothesis
import pytest

from tests.budgets import Spent
from tests.leaks import Resources

# The machine may be busy: a slow example is no failure. CI runs the same examples
# every time, so that what fails there fails again.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


_spent = Spent()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _spent.add(report.nodeid, report.duration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("time by part")
    for line in _spent.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a thread, process, descriptor or segment is left."""
    before = Resources.now()
    yield
    # What is just ending (a thread that was told to, another process's tidying up) is
    # not left behind.
    deadline = time.monotonic() + 2
    while (left := Resources.now().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        lines = "\n  ".join(left)
        pytest.fail(f"the test left behind:\n  {lines}", pytrace=False)
