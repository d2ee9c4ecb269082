"""scripts/find-python: an interpreter that works, or what was looked for."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find-python"
# The script's own needs, without whatever Python this machine has beside them.
TOOLS = ("dirname", "head", "cat", "sh")


class Machine:
    """A made-up machine: a PATH and a home of its own."""

    def __init__(self, root: Path) -> None:
        self.path, self.home = root / "bin", root / "home"
        self.path.mkdir()
        self.home.mkdir()
        for tool in TOOLS:
            real = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
            (self.path / tool).symlink_to(real)

    def interpreter(self, where: Path, body: str) -> Path:
        """Puts an executable shell script at `where`."""
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        where.chmod(0o755)
        return where

    def working(self, where: Path) -> Path:
        """An interpreter that can do what is needed: the one that runs this test."""
        return self.interpreter(where, f'exec "{sys.executable}" "$@"')

    def find(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", SCRIPT],
            env={"PATH": str(self.path), "HOME": str(self.home), **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_finds_a_working_python_on_the_path(machine: Machine) -> None:
    machine.working(machine.path / "python3.13")
    assert machine.find().stdout == f"{sys.executable}\n"


def test_passes_over_a_shim_that_fails(machine: Machine) -> None:
    machine.interpreter(machine.path / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    machine.working(machine.path / "python3")
    assert machine.find().stdout == f"{sys.executable}\n"


@pytest.mark.parametrize(
    "place", [".pyenv/versions/3.12.1/bin/python3", ".local/share/uv/python/cpython-3.13.0-linux/bin/python3"]
)
def test_looks_where_version_managers_keep_theirs(machine: Machine, place: str) -> None:
    machine.working(machine.home / place)
    assert machine.find().stdout == f"{sys.executable}\n"


def test_respects_where_a_version_manager_was_told_to_keep_its_own(machine: Machine, tmp_path: Path) -> None:
    machine.working(tmp_path / "pyenv" / "versions" / "3.13.2" / "bin" / "python3")
    assert machine.find(PYENV_ROOT=str(tmp_path / "pyenv")).stdout == f"{sys.executable}\n"


def test_keeps_a_choice_made_by_hand(machine: Machine, tmp_path: Path) -> None:
    machine.interpreter(machine.path / "python3.12", "exit 1")
    assert machine.find(PYTHON=str(machine.working(tmp_path / "mine"))).stdout == f"{sys.executable}\n"


def test_refuses_a_choice_that_will_not_do_although_another_would(machine: Machine, tmp_path: Path) -> None:
    machine.working(machine.path / "python3.12")
    mine = machine.interpreter(tmp_path / "mine", "echo 'is 3.9.1, too old' >&2; exit 1")
    result = machine.find(PYTHON=str(mine))
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"PYTHON={mine} will not do" in result.stderr
    assert "is 3.9.1, too old" in result.stderr


def test_explains_the_absence(machine: Machine) -> None:
    machine.interpreter(machine.path / "python3", "echo 'is 3.11.7, too old' >&2; exit 1")
    result = machine.find()
    assert result.returncode == 1
    assert result.stdout == ""
    assert "No CPython 3.12 or newer" in result.stderr
    assert "python3.12: not found" in result.stderr
    assert "python3: is 3.11.7, too old" in result.stderr
    assert f"pyenv: no Python 3.12 or newer in {machine.home}/.pyenv/versions" in result.stderr
    assert "make PYTHON=" in result.stderr
