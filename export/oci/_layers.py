"""Layers: tar files, compressed, whose bytes only names and contents decide about."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from namedtensor.export.oci import _media
from namedtensor.export.oci._layout import Descriptor, Sink, Writer

COMPRESSIONS = ("zstd", "gzip", "none")

_BLOCK = 1 << 20
# The strongest levels up to here, in one thread; quick ones, in all threads, for more.
_SMALL = 1 << 24
_ZSTD = {"small": 19, "large": 6, "dense": 3}
_GZIP = {"small": 9, "large": 6, "dense": 1}


@dataclass(frozen=True)
class Layer:
    """A layer that is in a layout: what it holds, in words, and the digest of its tar before compression."""

    title: str
    descriptor: Descriptor
    diff_id: str
    unpacked: int


class LayerWriter:
    """A layer in the making. All in it belongs to root, has the time 0, and can be read by everybody."""

    def __init__(self, title: str, tar: tarfile.TarFile) -> None:
        self.title = title
        self.layer: Layer | None = None
        self._tar = tar
        self._directories: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A directory, once, and those that it lies in."""
        for parent in [*reversed(PurePosixPath(path).parents[:-1]), PurePosixPath(path)]:
            name = parent.as_posix()
            if name not in self._directories:
                self._directories.add(name)
                member = tarfile.TarInfo(name)
                member.type, member.mode = tarfile.DIRTYPE, mode if name == path else 0o755
                self._tar.addfile(member)

    def file(self, path: str, size: int, blocks: Iterable[bytes], *, runs: bool = False) -> None:
        """A file of that many bytes, which come in pieces."""
        self._parents(path)
        member = tarfile.TarInfo(path)
        member.size, member.mode = size, 0o755 if runs else 0o644
        content = _Blocks(blocks)
        self._tar.addfile(member, cast(BinaryIO, content))
        # What checks a digest behind the last block has to be run to its end.
        if content.read():
            raise ValueError(f"{path} is larger than its {size:,} bytes")

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._parents(path)
        member = tarfile.TarInfo(path)
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        self._tar.addfile(member)

    def _parents(self, path: str) -> None:
        parent = PurePosixPath(path).parent.as_posix()
        if parent != ".":
            self.directory(parent)


@contextlib.contextmanager
def layer(layout: Writer, title: str, compression: str, *, expected: int, dense: bool = False) -> Iterator[LayerWriter]:
    """Write a layer; when the block is done, it is in the layout, and `layer` of what was yielded is set.

    `expected`: about how many bytes of files there will be. `dense`: what hardly gets smaller, so that little time is
    spent on it.
    """
    kind = "dense" if dense else "small" if expected <= _SMALL else "large"
    with layout.blob() as sink:
        pressed = _compressed(sink, compression, kind)
        tee = _Tee(pressed)
        with tarfile.open(fileobj=cast(BinaryIO, tee), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar:
            made = LayerWriter(title, tar)
            yield made
        pressed.close()
    suffix = "" if compression == "none" else f"+{compression}"
    descriptor = {"mediaType": _media.LAYER + suffix, "digest": sink.digest, "size": sink.size}
    made.layer = Layer(title, descriptor, tee.digest, tee.size)


def _compressed(sink: Sink, compression: str, kind: str) -> Any:
    if compression == "none":
        return _Open(sink)
    if compression == "gzip":
        return _Gzip(sink, _GZIP[kind])
    # With threads, however many, the pieces and so the bytes are the same.
    threads = 0 if kind == "small" else max(1, os.cpu_count() or 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(_ZSTD[kind], threads=threads, write_checksum=1)
    return zstandard.ZstdCompressor(compression_params=parameters).stream_writer(cast(BinaryIO, sink), closefd=False)


class _Open:
    def __init__(self, sink: Sink) -> None:
        self.write = sink.write

    def close(self) -> None:
        pass


class _Gzip:
    """Without the time and the name that Python's gzip would write."""

    def __init__(self, sink: Sink, level: int) -> None:
        self._sink = sink
        self._compressor = zlib.compressobj(level, wbits=31)

    def write(self, data: bytes) -> None:
        self._sink.write(self._compressor.compress(data))

    def close(self) -> None:
        self._sink.write(self._compressor.flush())


class _Tee:
    """Digests what goes into the compressor."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        self._below.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


class _Blocks(io.RawIOBase):
    """Blocks as a file that is read from its beginning to its end."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted:
            if not self._left:
                self._left = next(self._blocks, b"")
                if not self._left:
                    break
            part = self._left[:wanted] if wanted > 0 else self._left
            self._left = self._left[len(part) :]
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)
