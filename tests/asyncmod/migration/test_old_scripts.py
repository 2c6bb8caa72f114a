"""Scripts written for MXNet run when `await` and `async` are put in, and nothing else.

`tests/golden/scripts` holds three in MXNet's idiom, and what MXNet 1.9.1 printed when
it ran them as they are.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "golden" / "scripts"

# The places: calls that are awaited, functions of the script's own among them, and
# iterators that are looped over.
AWAITED = {
    "mlp_loop": {
        "average",
        "kv.init",
        "kv.pull",
        "kv.push",
        "mod.backward",
        "mod.bind",
        "mod.forward",
        "mod.get_outputs",
        "mod.get_params",
        "mod.init_optimizer",
        "mod.init_params",
        "mod.update",
        "mod.update_metric",
        "train_iter.reset",
    },
    "lenet_fit": {
        "again.bind",
        "fit",
        "mod.fit",
        "mod.predict",
        "mod.score",
        "mx.mod.Module.load",
        "report",
        "train.reset",
    },
    "bucketing_lstm": {
        "model.fit",
        "model.forward",
        "model.get_outputs",
        "model.get_params",
        "model.score",
        "model.switch_bucket",
    },
}
LOOPS = {"train_iter", "val_iter"}


def migrate(source: str, awaited: set[str]) -> str:
    """Put `await` before these calls, and `async` before what then needs it."""
    added: list[tuple[int, int, str]] = []
    tree = ast.parse(source)

    def add(line: int, column: int, text: str) -> None:
        added.append((line, column, text))

    def mark(node: ast.AST, parent: ast.AST) -> bool:
        """Note what is to be added in a node; whether something in it is awaited."""
        inside = [mark(child, node) for child in ast.iter_child_nodes(node)]
        found = any(inside)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in awaited:
            found = True
            wrapped = isinstance(parent, ast.Attribute | ast.Subscript)
            add(node.lineno, node.col_offset, "(await " if wrapped else "await ")
            if wrapped:
                assert node.end_lineno is not None
                assert node.end_col_offset is not None
                add(node.end_lineno, node.end_col_offset, ")")
        elif isinstance(node, ast.For) and ast.unparse(node.iter) in LOOPS:
            found = True
            add(node.lineno, node.col_offset, "async ")
        elif isinstance(node, ast.FunctionDef) and found:
            add(node.lineno, node.col_offset, "async ")
            return False
        return found

    mark(tree, tree)
    lines = source.splitlines(keepends=True)
    for line, column, text in sorted(added, reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:column] + text + old[column:]
    text = "".join(lines).replace("import mxnet as mx\n", "import asyncmod as mx\n")
    return text.replace("    main()\n", "    mx.run(main)\n")


class Synchronous(ast.NodeTransformer):
    """A program without its `await` and `async`."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        return self.generic_visit(ast.For(**vars(node)))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.generic_visit(ast.FunctionDef(**vars(node)))


def programs(name: str) -> tuple[str, str]:
    """A script as it was, and migrated."""
    old = (SCRIPTS / f"{name}.py.txt").read_text("utf-8")
    return old, migrate(old, AWAITED[name])


@pytest.mark.parametrize("name", AWAITED)
def test_only_await_and_async_are_added(name: str) -> None:
    old, new = programs(name)
    restored = ast.unparse(Synchronous().visit(ast.parse(new)))
    restored = restored.replace("import asyncmod as mx", "import mxnet as mx")
    assert restored.replace("mx.run(main)", "main()") == ast.unparse(ast.parse(old))
    # Every place occurs, and lines stay where they were.
    assert len(new.splitlines()) == len(old.splitlines())
    for call in AWAITED[name]:
        assert f"await {call}(" in new
    for before, after in zip(old.splitlines(), new.splitlines(), strict=True):
        if "import" not in before and "main()" not in before:
            bare = re.compile(r"await |async |[()]")
            assert bare.sub("", after) == bare.sub("", before)


@pytest.mark.parametrize("name", AWAITED)
def test_an_old_script_prints_what_it_printed_under_mxnet(
    name: str, tmp_path: Path
) -> None:
    """Words and whole numbers alike; others to four digits."""
    script = tmp_path / f"{name}.py"
    script.write_text(programs(name)[1], "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # structlog, unless configured, prints what MXNet logged and nobody saw.
    printed = [line for line in done.stdout.splitlines() if "[info " not in line]
    expected = (SCRIPTS / f"{name}.out.txt").read_text("utf-8").splitlines()
    number = re.compile(r"-?\d+\.\d+")
    assert [number.sub("#", line) for line in printed] == [
        number.sub("#", line) for line in expected
    ]
    for mine, theirs in zip(printed, expected, strict=True):
        assert [float(n) for n in number.findall(mine)] == pytest.approx(
            [float(n) for n in number.findall(theirs)], rel=1e-4
        ), mine
    if name != "mlp_loop":
        assert re.search(r"Epoch\[1\] Batch \[\S+\]\tSpeed: [\d.]+", done.stderr)
        assert "Epoch[1] Train-" in done.stderr
