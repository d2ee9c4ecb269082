"""The local cache of remote files: each under a name made of its address and version, complete or not there."""

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from namedtensor._home import cache_directory
from namedtensor.checkpoint._blob import Cancelled, LocalFile
from namedtensor.checkpoint._reject import reject

# One request's bytes, and requests under way at once: what it takes to fill a fast link over a long distance.
_PIECE = 8 << 20
_PARALLEL = 8
# Holds a file's name in the cache to what every file system takes.
_MAX_NAME = 120


def root() -> Path:
    """The package's cache; where there is none, a directory that ends with the process.

    What is fetched has to lie somewhere while it is used, also where nothing is to be kept.
    """
    return cache_directory() or Path(_passing().name)


@functools.cache
def _passing() -> tempfile.TemporaryDirectory[str]:
    """Removed as the interpreter ends."""
    return tempfile.TemporaryDirectory(prefix="namedtensor.")


def place(address: str, version: str, size: int) -> Path:
    """Where the file at `address` is kept. Another version of it, or another size, has another place."""
    key = hashlib.sha256(f"{address}\n{version}\n{size}".encode()).hexdigest()[:32]
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2]
    return root() / "files" / key / ("".join(c if c.isalnum() or c in "._-" else "_" for c in name)[-_MAX_NAME:] or "_")


def find(path: Path, size: int) -> LocalFile | None:
    """The cached file, if it is there and has its size."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == size:
            return LocalFile.open(path)
    return None


def download(
    path: Path,
    name: str,
    size: int,
    read: Callable[[int, int], bytes],
    advance: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> LocalFile:
    """Fetch `size` bytes by ranged parallel `read(offset, length)` calls, and put them at `path` in one step.

    Raises `Cancelled` once `cancelled` is true, `CheckpointError` where a read or the disk fails. Neither leaves a
    file behind.
    """
    failed = threading.Event()

    def piece(offset: int) -> None:
        if failed.is_set():
            return
        try:
            if cancelled is not None and cancelled():
                raise Cancelled
            data = read(offset, min(_PIECE, size - offset))
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
        except BaseException:
            failed.set()
            raise
        if advance is not None:
            advance(len(data))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    except OSError as error:
        reject(str(path.parent), f"the cache cannot be written: {error.strerror}", "set NAMEDTENSOR_CACHE")
    try:
        try:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="nt.fetch") as pool:
                for _ in pool.map(piece, range(0, size, _PIECE)):
                    pass
            # A name that a crash of the machine leaves without its bytes would be believed for ever.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            reject(name, f"cannot be kept in the cache at {path.parent}: {error.strerror or error}")
        raise
    return LocalFile.open(path)
