"""A directory packed as an archive's one file: tar, compressed with Zstandard."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from namedtensor._errors import ModelError
from namedtensor.compilers import OnProgress, Progress

MANIFEST = "bundle.json"
RUNNER = "plugins/runner"

_BLOCK = 1 << 20
# Small archives get the strongest level that is still quick. Plugins and weights are hundreds of megabytes: twice the
# level takes three to five times as long there, for 4% of a plugin and 0.3% of bf16 weights.
_SMALL, _LEVEL_SMALL, _LEVEL_LARGE = 1 << 26, 19, 3


def compress(root: Path, output: Path, on_progress: OnProgress = lambda progress: None) -> None:
    """Pack a directory, under its own name, as tar and Zstandard; only names and contents decide about the bytes.

    `bundle.json` comes first, so that a reader knows from the start what follows.
    """
    files = files_in(root)
    total = sum((root / path).stat().st_size for path in (MANIFEST, *files))
    level = _LEVEL_SMALL if total <= _SMALL else _LEVEL_LARGE
    # With threads, however many, the pieces and so the bytes are the same.
    threads = max(1, os.cpu_count() or 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(level, threads=threads, write_checksum=1)
    with (
        open(output, "wb") as file,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_BLOCK) as tar,
    ):
        done = 0

        def step(size: int) -> None:
            nonlocal done
            done += size
            on_progress(Progress("compression", done, total))

        tar.addfile(_member(root.name, 0, directory=True))
        seen = set()
        for path in (MANIFEST, *files):
            for parent in reversed(Path(path).parents[:-1]):
                if parent not in seen:
                    seen.add(parent)
                    tar.addfile(_member(f"{root.name}/{parent.as_posix()}", 0, directory=True))
            with open(root / path, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                tar.addfile(
                    _member(f"{root.name}/{path}", size, runs=runs(path, root.name)),
                    cast(Any, _Counted(content, step)),
                )


def runs(path: str, name: str) -> bool:
    """Whether a file is a program: a runner, or one that a plugin starts."""
    return path in (name, RUNNER) or (path.startswith("plugins/") and "/bin/" in path)


def _member(name: str, size: int, *, directory: bool = False, runs: bool = False) -> tarfile.TarInfo:
    if len(name) > 98:
        raise ModelError(f"{name}: too long a path for an archive; give the entry points shorter names")
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.uid, member.gid = size, 0, 0, 0
    member.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    member.mode = 0o755 if directory or runs else 0o644
    return member


def files_in(root: Path) -> list[str]:
    """Every file but the one that describes the others, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path != MANIFEST)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], step: Callable[[int], None]) -> None:
        self._file, self._step = file, step

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._step(len(data))
        return data
