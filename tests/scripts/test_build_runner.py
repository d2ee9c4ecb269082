"""`scripts/build-runner`: what is missing costs archives, not the set-up, and is told in one line."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build-runner"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the script, an old runner, and a PATH that has the shell's own tools only."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "namedtensor" / "_native").mkdir(parents=True)
    (tmp_path / "namedtensor" / "_native" / "runner").write_text("of other sources")
    (tmp_path / "bin").mkdir()
    for tool in ("dirname", "rm", "mktemp", "cat", "cmp", "cp", "mv", "mkdir"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    provide(tmp_path, "uname", "echo Linux x86_64")
    return tmp_path


def provide(checkout: Path, tool: str, body: str) -> None:
    path = checkout / "bin" / tool
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "build-runner"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(checkout / "bin")},
    )


def test_without_cargo_it_says_so_and_leaves_no_old_runner(checkout: Path) -> None:
    result = run(checkout)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "There is no cargo to build the runner with; `namedtensor build` will not work.\n"
    assert not (checkout / "namedtensor" / "_native" / "runner").exists()


def test_another_machine_is_told_that_there_is_no_runner_for_it(checkout: Path) -> None:
    provide(checkout, "uname", "echo Darwin arm64")
    result = run(checkout)
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "Linux on x86-64 only" in result.stderr


def test_a_missing_library_of_rust_is_named(checkout: Path) -> None:
    provide(checkout, "cargo", "exit 1")
    provide(checkout, "rustc", "echo /nowhere")
    result = run(checkout)
    assert result.returncode == 0
    assert "rustup target add x86_64-unknown-linux-musl" in result.stderr


def test_a_runner_that_was_built_takes_the_place_of_the_old_one(checkout: Path) -> None:
    provide(checkout, "rustc", "echo /")
    built = "runner/target/x86_64-unknown-linux-musl/runner"
    provide(checkout, "cargo", f"mkdir -p {built}; echo new > {built}/nt-runner")
    result = run(checkout)
    assert (result.returncode, result.stderr) == (0, "")
    assert (checkout / "namedtensor" / "_native" / "runner").read_text() == "new\n"
    assert [path.name for path in (checkout / "namedtensor" / "_native").iterdir()] == ["runner"]


def test_what_stops_the_build_is_shown(checkout: Path) -> None:
    provide(checkout, "rustc", "echo /")
    provide(checkout, "cargo", "echo 'error: no such crate' >&2; exit 101")
    result = run(checkout)
    assert result.returncode == 0
    assert "no such crate" in result.stderr
    assert not (checkout / "namedtensor" / "_native" / "runner").exists()
