"""Setting the values of all modules of a sequence, or of none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from asyncmod.errors import NameMismatchError
from asyncmod.module import parameters
from asyncmod.module.chain import Chain
from asyncmod.module.child import Child


@asynccontextmanager
async def setting(
    chain: Chain,
    arg_params: Mapping[str, Any] | None,
    aux_params: Mapping[str, Any] | None,
    allow_extra: bool,
) -> AsyncIterator[None]:
    """Check names, then set values in the body, in all modules or in none.

    Raises:
        NameMismatchError: two modules have a parameter of the same name.
        ExtraParameterError: the dicts have what no module has.
    """
    names = [child.module.inside.value_names for child in chain.children]
    _check_duplicates(chain.children, names)
    if not allow_extra:
        known = dict.fromkeys(name for part in names for name in part)
        parameters.check_extra(arg_params, known)
        parameters.check_extra(aux_params, known)
    async with chain.running:
        before = [
            await child.module.get_params() if child.module.params_initialized else None
            for child in chain.children
        ]
        with trio.CancelScope(shield=True):
            try:
                yield
            except BaseException:
                for child, values in zip(chain.children, before, strict=True):
                    if values is not None:
                        await child.module.set_params(*values)
                raise


def _check_duplicates(
    children: Sequence[Child], names: Sequence[Sequence[str]]
) -> None:
    owners: dict[str, int] = {}
    for position, part in enumerate(names):
        for name in part:
            owner = owners.setdefault(name, position)
            if owner != position:
                kinds = [type(child.module).__name__ for child in children]
                raise NameMismatchError(
                    f'Duplicated parameter names: name "{name}" in layer '
                    f"{position} ({kinds[position]}) is already used in layer "
                    f"{owner} ({kinds[owner]})"
                )
