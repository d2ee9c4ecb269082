"""What an archive holds, read from the stream: nothing is unpacked, and nothing in it is trusted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import zstandard

from namedtensor._errors import InputError
from namedtensor.export.archive._build import VERSION
from namedtensor.export.archive._compress import MANIFEST

_MAGIC = b"\x28\xb5\x2f\xfd"
_RECORD = 512
_BLOCK = 1 << 20
# More than any archive of a real program needs.
_LARGEST_MANIFEST = 1 << 26
_LARGEST_WINDOW = 1 << 27
_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,254}")
# What is used of a bundle.json here.
_FIELDS = {"name": str, "task": dict, "entries": list, "targets": list, "plugins": dict, "weights": dict}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """A file in an archive, as its `bundle.json` lists it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """An archive's `bundle.json`, and its files."""

    name: str
    bytes: int
    manifest: dict[str, Any]
    files: tuple[Member, ...]


def is_archive(path: str) -> bool:
    """Whether a path names an archive, by its ending."""
    return path.endswith(".tar.zst")


def read(path: Path, *, verify: bool = False) -> Contents:
    """An archive's contents from its `bundle.json`; with `verify`, every file is read and held against its digest.

    Raises `InputError`, in one line, where the file is no archive, damaged, or of another version.
    """
    with opened(path) as archive:
        if verify:
            for _, blocks in archive.members():
                for _ in blocks:
                    pass
        return archive.contents


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """An archive to read from its beginning to its end, once. Raises `InputError` as `read` does."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"{path}: not an archive that can be read ({error.strerror})") from error
    with file:
        yield Opened(path, file)


class Opened:
    """An archive whose `bundle.json` was read: `contents`, and `text`, its bytes."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = _Digested(file)
        self._stream = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
            cast(BinaryIO, self._file)
        )
        if file.read(4) != _MAGIC:
            self._refuse("it is not compressed with Zstandard")
        file.seek(0)
        self._records = self._members()
        name, size = next(self._records, ("", None))
        if size is not None or not _PART.fullmatch(name):
            self._refuse("it does not start with a directory")
        first, size = next(self._records, ("", None))
        if first != f"{name}/{MANIFEST}" or size is None:
            self._refuse(f"{MANIFEST} is not its first file")
        if size > _LARGEST_MANIFEST:
            self._refuse(f"{MANIFEST} has {size:,} bytes")
        self.text = self._exactly(size)
        manifest = self._manifest(self.text)
        self._exactly(-size % _RECORD)
        if manifest["name"] != name:
            self._refuse(f"{MANIFEST} is of {manifest['name']!r}, and the directory is {name!r}")
        self.contents = Contents(name, os.fstat(file.fileno()).st_size, manifest, self._files(manifest))

    def members(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Every file with what it holds, in the archive's order; a file must be read before the next one is asked for.

        Raises `InputError` at the end of a file that is not what `bundle.json` says, and where one is missing: what was
        read is to be trusted when the iteration has ended.
        """
        name = self.contents.name
        left = {f"{name}/{file.path}": file for file in self.contents.files}
        for path, size in self._records:
            if size is None:
                if not any(place.startswith(f"{path}/") for place in left):
                    self._refuse(f"the directory {path} holds no file that {MANIFEST} lists")
                continue
            expected = left.pop(path, None)
            if expected is None:
                self._refuse(f"{path} is not listed in {MANIFEST}, or is there twice")
            if size != expected.bytes:
                self._refuse(f"{path} has {size:,} bytes, not {expected.bytes:,}")
            yield expected, self._checked(path, expected)
        if left:
            self._refuse(f"{next(iter(left))} is missing")
        for _ in self._blocks(None):
            pass

    def digest(self) -> str:
        """The archive's own SHA-256 digest, in hexadecimal, once all of its members were read."""
        return self._file.digest()

    def _checked(self, path: str, expected: Member) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for block in self._blocks(expected.bytes):
            digest.update(block)
            yield block
        if digest.hexdigest() != expected.sha256:
            self._refuse(f"{path} has another digest than {MANIFEST} says")
        self._exactly(-expected.bytes % _RECORD)

    def _members(self) -> Iterator[tuple[str, int | None]]:
        """Path and size of one member after another; no size for a directory. The caller reads what it holds."""
        while True:
            record = self._exactly(_RECORD)
            if not any(record):
                return
            if record[257:263] != b"ustar ":
                self._refuse("a member's header is none of GNU tar")
            total = sum(record[:148]) + sum(record[156:]) + 8 * ord(" ")
            if self._number(record[148:156]) != total:
                self._refuse("a member's header is damaged")
            path = record[:100].rstrip(b"\0").decode("ascii", errors="replace").rstrip("/")
            if not all(_PART.fullmatch(part) for part in path.split("/")):
                self._refuse(f"{path!r} is no path within an archive")
            size = self._number(record[124:136])
            if record[156:157] == b"5" and size == 0:
                yield path, None
            elif record[156:157] == b"0":
                yield path, size
            else:
                self._refuse(f"{path} is neither a file nor a directory")

    def _number(self, field: bytes) -> int:
        if field[0] == 0x80:  # GNU's form for what has too many octal digits
            return int.from_bytes(field[1:], "big")
        text = field.rstrip(b" \0").lstrip(b" ")
        if not text or any(digit not in b"01234567" for digit in text):
            self._refuse("a member's header is damaged")
        return int(text, 8)

    def _exactly(self, size: int) -> bytes:
        return b"".join(self._blocks(size))

    def _blocks(self, size: int | None) -> Iterator[bytes]:
        """The next `size` bytes in pieces; without a size what is left, which only fills the last block of the tar."""
        left = _BLOCK if size is None else size
        while left:
            try:
                block = self._stream.read(min(_BLOCK, left))
            except (OSError, zstandard.ZstdError) as error:
                detail = getattr(error, "strerror", None) or str(error).partition("\n")[0]
                self._refuse(detail)
            if not block:
                if size is None:
                    return
                self._refuse("it ends early")
            left -= len(block)
            yield block
        if size is None:
            self._refuse("something follows its last file")

    def _manifest(self, text: bytes) -> dict[str, Any]:
        try:
            manifest = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._refuse(f"{MANIFEST} is not JSON ({error})")
        version = manifest.get("version") if isinstance(manifest, dict) else None
        if version != VERSION:
            self._refuse(f"{MANIFEST} has version {version!r} of the format, where {VERSION} is read here")
        for key, kind in _FIELDS.items():
            if not isinstance(manifest.get(key), kind):
                self._refuse(f"{MANIFEST} has no {key}")
        for target in manifest["targets"]:
            known = isinstance(target, dict) and isinstance(target.get("name"), str)
            paths = target.get("executables") if known else None
            if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
                self._refuse(f"{MANIFEST} has a target without a name or executables")
        for plugin in manifest["plugins"].values():
            known = isinstance(plugin, dict) and isinstance(plugin.get("releases"), dict)
            if not known or not isinstance(plugin.get("left_out"), dict):
                self._refuse(f"{MANIFEST} has a plugin without releases or left_out")
        for entry in manifest["entries"]:
            if not isinstance(entry, dict) or not isinstance(entry.get("variants"), list):
                self._refuse(f"{MANIFEST} has an entry point without variants")
        return manifest

    def _files(self, manifest: dict[str, Any]) -> tuple[Member, ...]:
        listed = manifest.get("files")
        if not isinstance(listed, dict):
            self._refuse(f"{MANIFEST} lists no files")
        found = []
        for path, file in listed.items():
            size = file.get("bytes") if isinstance(file, dict) else None
            digest = file.get("sha256") if isinstance(file, dict) else None
            if not all(_PART.fullmatch(part) for part in path.split("/")):
                self._refuse(f"{path!r} is no path within an archive")
            if type(size) is not int or size < 0 or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                self._refuse(f"{MANIFEST} has no size and digest of {path}")
            found.append(Member(path, size, digest))
        return tuple(found)

    def _refuse(self, problem: str) -> NoReturn:
        raise InputError(f"{self._path}: not an archive that can be read: {problem}")


class _Digested:
    """A file that knows the digest of what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self._digest.update(block)
        return block

    def digest(self) -> str:
        """Of the whole file: what follows the compressed data is part of it too."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest()
