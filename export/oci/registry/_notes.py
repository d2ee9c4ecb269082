"""Where uploads stood when they were interrupted, so that a later run goes on there.

One small file for each blob under way, in the cache, readable by its owner alone: the address of an upload may be
signed, and then whoever has it can write. It is a hint: the registry is asked before it is believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from namedtensor.checkpoint import _cache
from namedtensor.export.oci.registry._reference import Reference

_MAX_BYTES = 64 << 10
# Registries forget uploads sooner.
_KEPT_S = 7 * 24 * 3600


class Note:
    """The address of one blob's upload, if one is known. Without a file it is forgotten at the end of the run."""

    def __init__(self, file: int | None = None, path: Path | None = None) -> None:
        self._file = file
        self._path = path

    def read(self) -> tuple[str, int] | None:
        """The address that was written last and the length of chunks, or None."""
        if self._file is None:
            return None
        try:
            found = json.loads(os.pread(self._file, _MAX_BYTES, 0))
            location, chunk = found["location"], found["chunk"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return (location, chunk) if isinstance(location, str) and type(chunk) is int else None

    def write(self, location: str, chunk: int) -> None:
        if self._file is not None:
            data = json.dumps({"location": location, "chunk": chunk}).encode()
            with contextlib.suppress(OSError):
                # In place, since the lock is on this file. One that was cut short by a crash says nothing.
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, data, 0)

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def note(reference: Reference, digest: str) -> Iterator[Note]:
    """The note of a blob's upload to a repository, for this process alone.

    Where another process has it, or the cache cannot be written, a note that does not outlive the block: two uploads
    must not write to one address, and none is worth failing for.
    """
    key = hashlib.sha256(f"{reference.registry}\n{reference.repository}\n{digest}".encode()).hexdigest()[:32]
    path = _cache.root() / "uploads" / f"{key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield Note()
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield Note()
            return
        yield Note(file, path)
    finally:
        os.close(file)


def tidy() -> None:
    """Throw away notes that no registry will remember."""
    with contextlib.suppress(OSError):
        for path in (_cache.root() / "uploads").glob("*.json"):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)
