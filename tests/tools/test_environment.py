"""The tools' virtual environment: made once, made again when stale or interrupted."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/environment.py, which is no part of a package."""
    name = "tools_environment"
    spec = importlib.util.spec_from_file_location(name, TOOLS / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


class Commands:
    """Stands for the commands that make and fill an environment."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.fails = False

    def __call__(self, command: Sequence[str]) -> None:
        text = " ".join(command)
        self.given.append(text)
        if "-m venv" in text:
            Path(command[-1]).mkdir(exist_ok=True)
        elif self.fails:
            raise SystemExit("pip failed")


@pytest.fixture
def commands(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(environment, "run_or_exit", commands)
    return commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def test_made_and_filled_once(
    environment: ModuleType, commands: Commands, project: Path
) -> None:
    python = environment.ensure(dev=False, project=project)
    assert python.parent.parent == project / ".venv"
    venv, pip = commands.given
    assert "-m venv --clear" in venv
    assert pip.endswith(f"--editable {project}")
    environment.ensure(dev=False, project=project)
    assert len(commands.given) == 2


def test_installed_again_when_pyproject_changes(
    environment: ModuleType, commands: Commands, project: Path
) -> None:
    environment.ensure(dev=True, project=project)
    before = len(commands.given)
    (project / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    environment.ensure(dev=True, project=project)
    assert commands.given[before:][-1].endswith(f"--editable {project}[dev]")


def test_dev_serves_those_who_do_not_need_it_but_not_the_reverse(
    environment: ModuleType, commands: Commands, project: Path
) -> None:
    environment.ensure(dev=False, project=project)
    before = len(commands.given)
    environment.ensure(dev=True, project=project)
    assert len(commands.given) > before
    before = len(commands.given)
    environment.ensure(dev=False, project=project)
    assert len(commands.given) == before


def test_interrupted_installation_is_done_again(
    environment: ModuleType, commands: Commands, project: Path
) -> None:
    environment.ensure(dev=False, project=project)
    commands.fails = True
    with pytest.raises(SystemExit, match="pip failed"):
        environment.ensure(dev=True, project=project)
    # The earlier installation's stamp must not speak for the interrupted one.
    commands.fails = False
    before = len(commands.given)
    environment.ensure(dev=False, project=project)
    assert len(commands.given) > before


def test_environment_of_a_moved_project_is_installed_again(
    environment: ModuleType, commands: Commands, project: Path, tmp_path: Path
) -> None:
    environment.ensure(dev=False, project=project)
    before = len(commands.given)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "pyproject.toml").write_text("[project]\n")
    (project / ".venv").rename(moved / ".venv")
    environment.ensure(dev=False, project=moved)
    assert commands.given[before:][-1].endswith(f"--editable {moved}")


def test_a_failing_command_ends_the_program(
    environment: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="exit status 3"):
        environment.run_or_exit([sys.executable, "-c", "print('x'); exit(3)"])
    # Standard output belongs to the program that is run afterwards.
    out, err = capfd.readouterr()
    assert out == ""
    assert "x" in err
