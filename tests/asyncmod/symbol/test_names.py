from __future__ import annotations

import trio
import trio.testing

import asyncmod.symbol as sym


def name_of(kind: str = "exp") -> str:
    name = getattr(sym, kind)(sym.Variable("x")).name
    assert isinstance(name, str)
    return name


def test_each_kind_counts_for_itself() -> None:
    with sym.NameManager():
        assert [name_of("exp"), name_of("log"), name_of("exp")] == [
            "exp0",
            "log0",
            "exp1",
        ]


def test_given_names_do_not_count() -> None:
    with sym.NameManager():
        assert sym.exp(sym.Variable("x"), name="mine").name == "mine"
        assert name_of() == "exp0"


def test_scopes_nest_and_start_anew() -> None:
    with sym.NameManager() as outer:
        assert name_of() == "exp0"
        with sym.NameManager():
            assert name_of() == "exp0"
        assert name_of() == "exp1"
        with outer:
            assert name_of() == "exp2"


def test_without_scopes_the_process_counts() -> None:
    first, second = name_of(), name_of()
    assert int(second.removeprefix("exp")) == int(first.removeprefix("exp")) + 1


def test_prefix_stands_before_every_operator_but_no_variable() -> None:
    with sym.Prefix("stage1_"):
        net = sym.FullyConnected(sym.Variable("data"), num_hidden=2, name="fc")
        assert name_of() == "stage1_exp0"
    assert net.list_arguments() == ["data", "stage1_fc_weight", "stage1_fc_bias"]


def test_own_manager_may_name() -> None:
    class Shouting(sym.NameManager):
        def get(self, name: str | None, hint: str) -> str:
            return super().get(name, hint).upper()

    with Shouting():
        assert name_of() == "EXP0"


async def test_tasks_do_not_disturb_each_other() -> None:
    sequencer = trio.testing.Sequencer()
    names: dict[str, list[str]] = {"a": [], "b": []}
    attributes: dict[str, str | None] = {}

    async def build(task: str, positions: tuple[int, int]) -> None:
        async with sequencer(positions[0]):
            scope = sym.Prefix(f"{task}_")
            marked = sym.AttrScope(__task__=task)
            scope.__enter__()
            marked.__enter__()
            names[task].append(name_of())
        async with sequencer(positions[1]):
            names[task].append(name_of())
            attributes[task] = sym.Variable("x").attr("__task__")
            marked.__exit__(None, None, None)
            scope.__exit__(None, None, None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, "a", (0, 2))
        nursery.start_soon(build, "b", (1, 3))
    assert names == {"a": ["a_exp0", "a_exp1"], "b": ["b_exp0", "b_exp1"]}
    assert attributes == {"a": "a", "b": "b"}
