"""Nothing can be awaited that is not cancelled at every point by some test."""

from __future__ import annotations

from tests.asyncmod.cancellation import test_module_awaits, test_other_awaits
from tests.asyncmod.cancellation.members import awaitable_members

ELSEWHERE = {
    "EarlyStopping.__call__": "awaits nothing",
    "open_runtime": "tests/runtime/actors/test_runtime.py",
}
"""Why a member has no case here, or where its test is."""


def test_every_awaitable_member_has_a_case() -> None:
    kinds = test_module_awaits.TABLE.items()
    names = [f"{kind}.{name}" for kind, cases in kinds for name in cases]
    names += test_other_awaits.TABLE
    # In brackets stands what sets two cases of a member apart.
    covered = {name.partition(" ")[0] for name in names} | ELSEWHERE.keys()
    missing = awaitable_members() - covered
    assert not missing, (
        f"{sorted(missing)} can be awaited, and no case cancels them: add one to "
        "modules.py, bucketing.py, sequential.py, python_modules.py, iterators.py or "
        "others.py beside this file"
    )
    assert not covered - awaitable_members(), "cases of what is not there any more"
