"""Shell scripts tested alone: a directory whose PATH has some of the system's tools, and stand-ins for others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path


def checkout_of(script: Path, directory: Path, tools: Sequence[str]) -> Path:
    """The script in `scripts`, and in `bin` the tools, and a `uname` for which this is Linux on x86-64."""
    (directory / "scripts").mkdir()
    shutil.copy(script, directory / "scripts")
    (directory / "bin").mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None
        (directory / "bin" / tool).symlink_to(found)
    provide(directory, "uname", "echo Linux x86_64")
    return directory


def provide(checkout: Path, tool: str, body: str) -> None:
    """Put a script in a tool's place."""
    path = checkout / "bin" / tool
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
