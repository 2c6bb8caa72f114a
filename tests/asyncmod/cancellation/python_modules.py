"""Cases for PythonLossModule: no parameters and no devices."""

from __future__ import annotations

from pathlib import Path

import asyncmod as mx
from asyncmod.io import DataDesc
from tests.asyncmod.cancellation.module_calls import Stages, common_cases
from tests.asyncmod.cancellation.module_subject import ModuleSubject
from tests.asyncmod.cancellation.sequential import (
    CLASSES,
    CUT_SHORT,
    ROWS,
    batch,
    gradient,
    with_waypoints,
)
from tests.asyncmod.cancellation.trial import Case


async def make(folder: Path) -> ModuleSubject:
    module = mx.PythonLossModule(grad_func=gradient)
    described = (
        [DataDesc("data", (ROWS, CLASSES))],
        [DataDesc("softmax_label", (ROWS,))],
    )
    batches = [batch(i) for i in range(4)]
    return ModuleSubject(module, described, batches, folder, grad_req="write")


def cases(context: list[mx.Context]) -> dict[str, Case]:
    """By member; wherever they run."""
    common = common_cases(Stages(make))
    return with_waypoints(common, CUT_SHORT)
