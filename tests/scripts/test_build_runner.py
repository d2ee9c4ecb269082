"""`scripts/build-runner`: what is missing costs archives, not the set-up, and is told in one line."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from tests.scripts.shell import checkout_of, provide

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "build-runner"
NATIVE = Path("namedtensor", "_native")
RUNNERS = {"runner", "runner-lean", "runner-glibc"}
# The directories in which Cargo leaves the static runners and the one that is linked against glibc, by profile.
BUILT = {"build": "runner/target/x86_64-unknown-linux-musl", "zigbuild": "runner/target/x86_64-unknown-linux-gnu"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the script, old runners, and a PATH that has the shell's own tools only."""
    shutil.copy(ROOT / "requirements-native.lock", tmp_path)
    (tmp_path / NATIVE).mkdir(parents=True)
    for runner in RUNNERS:
        (tmp_path / NATIVE / runner).write_text("of other sources")
    return checkout_of(SCRIPT, tmp_path, ("dirname", "rm", "mktemp", "cat", "cmp", "cp", "mv", "mkdir"))


def provide_builds(checkout: Path) -> None:
    """Rust's libraries, a Cargo that builds at once, and a pip that installs what it is told to."""
    provide(checkout, "rustc", "echo /")
    cases = "\n".join(f"{command}) built={built} ;;" for command, built in BUILT.items())
    provide(checkout, "cargo", f'case $1 in {cases} esac; mkdir -p $built/$4; echo "$*" > $built/$4/nt-runner')
    provide(checkout, "python3", 'while [ "$1" != --target ]; do shift; done; mkdir -p "$2"')


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "build-runner"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(checkout / "bin")},
    )


def runners(checkout: Path) -> set[str]:
    return {path.name for path in (checkout / NATIVE).iterdir()}


def test_without_cargo_it_says_so_and_leaves_no_old_runner(checkout: Path) -> None:
    result = run(checkout)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "There is no cargo to build the runner with; `namedtensor build` will not work.\n"
    assert runners(checkout) == set()


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


def test_runners_that_were_built_take_the_place_of_the_old_ones(checkout: Path) -> None:
    provide_builds(checkout)
    result = run(checkout)
    assert (result.returncode, result.stderr) == (0, "")
    assert runners(checkout) == RUNNERS
    options = {name: (checkout / NATIVE / name).read_text() for name in RUNNERS}
    assert "--target x86_64-unknown-linux-musl " in options["runner"]
    assert "--target x86_64-unknown-linux-gnu.2.28 " in options["runner-glibc"]
    assert (
        options["runner-lean"]
        == options["runner"].replace("runner", "runner-lean", 1).rstrip() + " --no-default-features\n"
    )


def test_zig_is_installed_once_for_each_lock(checkout: Path) -> None:
    provide_builds(checkout)
    assert run(checkout).returncode == 0
    provide(checkout, "python3", "exit 1")
    assert run(checkout).stderr == ""
    (checkout / "requirements-native.lock").write_text("another")
    assert "zig, which links" in run(checkout).stderr


def test_without_zig_archives_for_cpus_can_still_be_built(checkout: Path) -> None:
    provide_builds(checkout)
    provide(checkout, "python3", "echo 'pip: no network' >&2; exit 1")
    result = run(checkout)
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "pip: no network",
        "zig, which links the runner that loads plugins, could not be installed (see above); "
        "`namedtensor build` will make archives for CPUs only.",
    ]
    assert runners(checkout) == {"runner", "runner-lean"}
    assert not (checkout / ".cache").exists()


def test_what_stops_the_build_is_shown(checkout: Path) -> None:
    provide(checkout, "rustc", "echo /")
    provide(checkout, "cargo", "echo 'error: no such crate' >&2; exit 101")
    result = run(checkout)
    assert result.returncode == 0
    assert "no such crate" in result.stderr
    assert runners(checkout) == set()


# What the programs need of the machine that they are copied to


def elf(runner: str) -> Any:
    path = ROOT / NATIVE / runner
    if not path.is_file():
        pytest.skip(f"scripts/build-runner has not built {runner}")
    return ELFFile(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize("name", ["runner", "runner-lean"])
def test_static_runners_need_no_loader_and_no_library(name: str) -> None:
    static = elf(name)
    assert not [segment for segment in static.iter_segments() if segment.header.p_type == "PT_INTERP"]
    dynamic = static.get_section_by_name(".dynamic")
    assert not dynamic or not [tag for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]


def test_the_other_runner_needs_glibc_2_28_at_most_and_nothing_else() -> None:
    linked = elf("runner-glibc")
    segments = [segment for segment in linked.iter_segments() if segment.header.p_type == "PT_INTERP"]
    assert [segment.get_interp_name() for segment in segments] == ["/lib64/ld-linux-x86-64.so.2"]
    tags = linked.get_section_by_name(".dynamic").iter_tags()
    needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
    assert "libc.so.6" in needed
    assert needed <= {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2"}
    needs = linked.get_section_by_name(".gnu.version_r").iter_versions()
    versions = [version.name for _, auxiliaries in needs for version in auxiliaries]
    assert versions
    for version in versions:
        number = tuple(int(part) for part in version.removeprefix("GLIBC_").split("."))
        assert number <= (2, 28), version
