"""Runs the programs of unpacked archives, with nothing around them, and reads what they print."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

# scripts/check-memory runs programs under a tool that watches over their memory, or has the compiler put one into them.
# Both take time and address space.
WATCHER = shlex.split(os.environ.get("NAMEDTENSOR_WATCHER", ""))
WATCHED = "NAMEDTENSOR_RUNNER" in os.environ
PATIENCE = 600 if WATCHED else 60


def environment(program: Path) -> dict[str, str]:
    """What a watched program needs. It is linked to glibc, and where its archive lies such a program is told."""
    if not WATCHED:
        return {}
    return {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""), "NAMEDTENSOR_ARCHIVE": str(program)}


@functools.cache
def confined() -> bool:
    """Whether bubblewrap is here and may make namespaces."""
    if shutil.which("bwrap") is None:
        return False
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run(program: Path, *arguments: object, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run an archive's program with an empty environment, but for what a watcher needs."""
    found = subprocess.run(
        [*WATCHER, program / program.name, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        env=environment(program),
        timeout=PATIENCE,
    )
    return subprocess.CompletedProcess(found.args, found.returncode, found.stdout.decode(), found.stderr.decode())


def run_alone(program: Path, root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it in a root file system that holds the archive, the files in `root`, and nothing else."""
    shutil.copytree(program, root / program.name)
    return subprocess.run(
        [
            *("bwrap", "--bind", root, "/", "--unshare-all", "--clearenv"),
            f"/{program.name}/{program.name}",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(program: Path, *arguments: object, code: int, stdin: str | bytes = b"") -> str:
    """The one line on stderr of a run that ends with this code and prints nothing else."""
    found = run(program, *arguments, stdin=stdin)
    assert found.returncode == code, found.stderr
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr
