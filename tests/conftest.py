"""What every test gets: a check that it left nothing behind, and calm Hypothesis.

Processes that tests start read compiled modules. At the end of a run: what each part
has taken.
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
hypothesis.settings.register_profile(
    "local", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "ci",
    hypothesis.settings.get_profile("local"),
    derandomize=True,
    print_blob=True,
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

ENDING_SECONDS = 2.0
"""For what is just ending when a test is over."""

_spent = Spent()


def pytest_configure(config: pytest.Config) -> None:
    # Where Python is told to write no bytecode, each of hundreds of processes would
    # compile all modules: a third of what a worker takes to start.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        kept = config.rootpath / ".pytest_cache" / "bytecode"
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(kept))


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
    deadline = time.monotonic() + ENDING_SECONDS
    while (left := Resources.now().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        lines = "\n  ".join(left)
        pytest.fail(f"the test left behind:\n  {lines}", pytrace=False)
