"""Runs the programs of unpacked archives, with nothing around them, and reads what they print."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path


@functools.cache
def confined() -> bool:
    """Whether bubblewrap is here and may make namespaces."""
    if shutil.which("bwrap") is None:
        return False
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run(program: Path, *arguments: object, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run an archive's program with an empty environment."""
    found = subprocess.run(
        [program / program.name, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        env={},
        timeout=60,
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
