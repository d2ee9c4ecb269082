"""OCI image layouts (image-spec 1.1): blobs by digest, in a directory or in a tar of one, written and read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from namedtensor._errors import InputError
from namedtensor.export.oci import _media

# What names a blob: mediaType, digest, size, and more by the specification.
Descriptor = dict[str, Any]

_MARK = "oci-layout"
_INDEX = "index.json"
_VERSION = {"imageLayoutVersion": "1.0.0"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BLOCK = 1 << 20
# Registries take no larger manifest either.
_LARGEST_DOCUMENT = 1 << 22
_MOST_MEMBERS = 1 << 16


def encode(document: Any) -> bytes:
    """JSON, always in the same bytes."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Sink(io.RawIOBase):
    """A blob that is being written: knows its digest and size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


class Writer:
    """A layout in the making."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)

    @contextlib.contextmanager
    def blob(self) -> Iterator[Sink]:
        """A blob to write; it is there when the block is done."""
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".blob.", delete=False) as file:
            sink = Sink(file)  # type: ignore[arg-type]
            yield sink
        self._keep(Path(file.name), sink.digest)

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Write a blob that is in memory."""
        with self.blob() as sink:
            sink.write(data)
        return {"mediaType": media_type, "digest": sink.digest, "size": sink.size}

    def copy(self, stream: BinaryIO, descriptor: Descriptor) -> None:
        """Take a blob over from elsewhere. Raises `InputError` where it is not what `descriptor` says."""
        with self.blob() as sink:
            shutil.copyfileobj(stream, sink, _BLOCK)
        if (sink.digest, sink.size) != (descriptor["digest"], descriptor["size"]):
            raise InputError(f"blob {descriptor['digest']} is damaged")

    def finish(self, manifests: list[Descriptor]) -> None:
        """Say what the layout holds, the first of `manifests` first."""
        index = {"schemaVersion": 2, "mediaType": _media.INDEX, "manifests": manifests}
        (self._root / _INDEX).write_bytes(encode(index))
        (self._root / _MARK).write_bytes(encode(_VERSION))

    def _keep(self, temporary: Path, digest: str) -> None:
        temporary.chmod(0o644)
        temporary.replace(self._blobs / digest.removeprefix("sha256:"))


@contextlib.contextmanager
def writing(output: Path) -> Iterator[Writer]:
    """Write a layout: a tar file where `output` ends in .tar, otherwise a directory.

    It appears, in place of a layout that is there, when the block is done, or not at all. Raises `InputError` where
    something else is there.
    """
    packed = output.name.endswith(".tar")
    check_output(output)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.absolute().parent) as temporary:
        root = Path(temporary) / "layout"
        root.mkdir()
        yield Writer(root)
        if packed:
            _pack(root, Path(temporary) / "packed")
            (Path(temporary) / "packed").replace(output)
        else:
            if output.exists():
                output.replace(Path(temporary) / "replaced")
            root.replace(output)


def check_output(output: Path) -> None:
    """Raise `InputError` where a layout must not be written: over what is none."""
    if output.name.endswith(".tar"):
        if output.is_dir():
            raise InputError(f"{output}: that is a directory")
    elif output.exists() and not (output / _MARK).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output}: something other than an OCI image layout is there; name another directory")


def _pack(root: Path, output: Path) -> None:
    """Only names and contents decide about the bytes."""
    blobs = sorted(path.relative_to(root).as_posix() for path in (root / "blobs").rglob("*"))
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in (_MARK, _INDEX, "blobs", *blobs):
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if (root / name).is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
                continue
            with open(root / name, "rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                tar.addfile(member, content)


class Layout:
    """A layout that is there. What is read of it is checked; use it as a context manager, or `close` it."""

    def __init__(self, path: Path) -> None:
        """Open a directory or a tar file. Raises `InputError` where it is no layout."""
        self.path = path
        # Where each file of a tar begins, and its size.
        self._members: dict[str, tuple[int, int]] = {}
        if not path.is_dir():
            self._members = self._packed()
        mark = self._document(self._file(_MARK), _MARK)
        if mark.get("imageLayoutVersion") != _VERSION["imageLayoutVersion"]:
            self._refuse(f"its version is {mark.get('imageLayoutVersion')!r}")
        self.index = self._document(self._file(_INDEX), _INDEX)
        self.manifests: list[Descriptor] = self._descriptors(self.index, "manifests")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *stopped: object) -> None:
        return None

    def images(self) -> list[Descriptor]:
        """Images and image indexes that the layout's index names, without what refers to others."""
        known = (*_media.INDEXES, *_media.MANIFESTS)
        return [one for one in self.manifests if one.get("mediaType") in known and not one.get("artifactType")]

    def image(self, tag: str | None = None) -> Descriptor:
        """The image, or image index, of this tag; without a tag the only one."""
        found = self.images()
        if tag is not None:
            found = [one for one in found if one.get("annotations", {}).get(_media.REF_NAME) == tag]
        if len(found) != 1:
            tags = sorted({str(one.get("annotations", {}).get(_media.REF_NAME)) for one in self.images()})
            self._refuse(
                f"it has {len(found)} images{'' if tag is None else f' tagged {tag!r}'}; tags: {', '.join(tags)}"
            )
        return found[0]

    def manifest(self, descriptor: Descriptor) -> dict[str, Any]:
        """A manifest, an index or a configuration: a JSON object, which the descriptor's digest vouches for."""
        return self._document(self.read(descriptor), descriptor["digest"])

    def layers(self, manifest: dict[str, Any]) -> list[Descriptor]:
        """The layers of a manifest, the lowest first."""
        return self._descriptors(manifest, "layers")

    def read(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole, held against its digest."""
        self._check(descriptor)
        digest, size = descriptor["digest"], descriptor["size"]
        if size > _LARGEST_DOCUMENT:
            self._refuse(f"{digest} has {size:,} bytes")
        with self.stream(digest) as stream:
            data = stream.read(size + 1)
        if len(data) != size or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self._refuse(f"blob {digest} is damaged")
        return data

    def size(self, digest: str) -> int:
        """Bytes of a blob, as it is there."""
        with self.stream(digest) as stream:
            return stream.seek(0, os.SEEK_END)

    def stream(self, digest: str) -> BinaryIO:
        """A blob to read from anywhere in it, not checked yet. Each has a place of its own, for any thread."""
        if not _DIGEST.fullmatch(digest):
            self._refuse(f"{digest!r} is no digest")
        return self._file(f"blobs/sha256/{digest.removeprefix('sha256:')}")

    def _file(self, name: str) -> BinaryIO:
        try:
            if self.path.is_dir():
                return open(self.path / name, "rb")
            if name not in self._members:
                self._refuse(f"{name} is missing")
            # Buffered for its `read`, which gives all that was asked for.
            return io.BufferedReader(_Part(self.path, *self._members[name]), _BLOCK)
        except OSError as error:
            self._refuse(f"{name}: {error.strerror}")

    def _packed(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self.path, "r:") as tar:
                for count, member in enumerate(tar):
                    if member.isreg() and not member.issparse():
                        found[member.name.removeprefix("./")] = (member.offset_data, member.size)
                    if count > _MOST_MEMBERS:
                        self._refuse(f"it has more than {_MOST_MEMBERS:,} files")
        except OSError as error:
            self._refuse(error.strerror or str(error))
        except (tarfile.TarError, ValueError) as error:
            self._refuse(f"neither a directory nor a tar file ({error})")
        return found

    def _document(self, data: bytes | BinaryIO, name: str) -> dict[str, Any]:
        if not isinstance(data, bytes):
            with data:
                data = data.read(_LARGEST_DOCUMENT + 1)
        if len(data) > _LARGEST_DOCUMENT:
            self._refuse(f"{name} is larger than {_LARGEST_DOCUMENT:,} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            self._refuse(f"{name} is not JSON ({error})")
        if not isinstance(document, dict):
            self._refuse(f"{name} is no JSON object")
        return document

    def _descriptors(self, document: dict[str, Any], key: str) -> list[Descriptor]:
        found = document.get(key)
        if not isinstance(found, list):
            self._refuse(f"{key} is no list")
        for one in found:
            self._check(one)
        return found

    def _check(self, one: Any) -> None:
        known = isinstance(one, dict) and isinstance(one.get("annotations", {}), dict)
        size, digest = (one.get("size"), one.get("digest")) if known else (None, None)
        if type(size) is not int or size < 0 or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            self._refuse(f"{str(one)[:80]} describes no blob")

    def _refuse(self, problem: str) -> NoReturn:
        raise InputError(f"{self.path}: not an OCI image layout that can be read: {problem}")


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this)
        self._start, self._size, self._place = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._place))
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
