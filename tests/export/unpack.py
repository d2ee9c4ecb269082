"""Unpacks archives, as `tar -xf` does."""

import tarfile
from pathlib import Path

import zstandard


def unpack(path: Path, directory: Path) -> Path:
    """Unpack an archive; returns the one directory that it holds."""
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
    return directory / first.name
