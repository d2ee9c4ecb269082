"""Unpacks archives, as `tar -xf` does."""

import os
import shutil
import tarfile
from pathlib import Path

import zstandard


def unpack(path: Path, directory: Path) -> Path:
    """Unpack an archive; returns the one directory that it holds.

    Its program is the one that NAMEDTENSOR_RUNNER names, where that is set: scripts/check-memory has one that watches
    over its memory.
    """
    with (
        open(path, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        first = tar.next()
        assert first is not None
        tar.extract(first, directory, filter="data")
        for member in tar:
            tar.extract(member, directory, filter="data")
    root = directory / first.name
    if runner := os.environ.get("NAMEDTENSOR_RUNNER"):
        shutil.copy(runner, root / root.name)
    return root
