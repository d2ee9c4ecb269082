"""`scripts/system-packages`: installs what is missing where it can, and costs no more than the tests that need it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "system-packages"
PROGRAMS = ("bazel", "bwrap", "docker-registry", "skopeo", "umoci")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A PATH with nothing but a shell."""
    for tool in ("bash", "env"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    return tmp_path


def provide(place: Path, tool: str, body: str = "exit 1") -> None:
    path = place / tool
    path.write_text(f"#!{place}/bash\n{body}\n")
    path.chmod(0o755)


def run(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT], capture_output=True, text=True, check=False, env={"PATH": str(place)})


def test_where_everything_is_there_it_does_nothing(place: Path) -> None:
    for tool in (*PROGRAMS, "apt-get"):
        provide(place, tool)
    assert (run(place).returncode, run(place).stderr) == (0, "")


def test_without_apt_it_says_what_is_missing(place: Path) -> None:
    provide(place, "skopeo")
    done = run(place)
    assert done.returncode == 0
    assert "not here: bazel-bootstrap bubblewrap docker-registry umoci;" in done.stderr


def test_without_the_right_it_says_what_to_do(place: Path) -> None:
    provide(place, "apt-get")
    provide(place, "id", "echo 1000")
    done = run(place)
    assert done.returncode == 0
    packages = "bazel-bootstrap bubblewrap docker-registry skopeo umoci"
    assert f"as root: apt-get install --yes --no-install-recommends {packages}" in done.stderr


@pytest.mark.parametrize(("code", "says"), [(0, ""), (1, "could not install umoci")])
def test_what_is_missing_is_installed(place: Path, code: int, says: str) -> None:
    for tool in PROGRAMS[:-1]:
        provide(place, tool)
    provide(place, "id", "echo 0")
    provide(place, "apt-get", f'echo "$@" >> {place}/asked; exit {code}')
    done = run(place)
    assert done.returncode == 0
    assert says in done.stderr
    asked = (place / "asked").read_text().splitlines()
    assert asked[0] == "update"
    assert code or asked[1:] == ["install --yes --no-install-recommends umoci"]
