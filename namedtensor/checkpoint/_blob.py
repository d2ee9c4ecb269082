"""Bytes of one file of a checkpoint, wherever it lies."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from namedtensor.checkpoint._reject import reject

# Linux reads at most 2 GiB less a page per call.
_MAX_READ = 1 << 30


class Blob(ABC):
    """One file: a name to show, a size, and ranged reads. `local` brings all of it onto this machine."""

    name: str
    size: int

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises `CheckpointError` where they are not there."""

    @abstractmethod
    def local(
        self, advance: Callable[[int], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> "LocalFile":
        """The same file on a local disk, downloaded into the cache where need be.

        `advance` is told of every so many bytes fetched; once `cancelled` is true, `Cancelled` is raised.
        """

    @property
    @abstractmethod
    def to_fetch(self) -> int:
        """Bytes that `local` would still have to download."""


class Cancelled(Exception):
    """Raised inside a download that was told to stop. Never reaches a caller of the package."""


@dataclass(frozen=True, slots=True)
class LocalFile(Blob):
    """A file on a local disk as it was when opened. Every later read checks that it is still the same file."""

    path: Path
    size: int
    inode: tuple[int, int]
    modified_ns: int

    @classmethod
    def open(cls, path: Path) -> "LocalFile":
        try:
            found = os.stat(path)
        except (OSError, ValueError) as error:
            reject(str(path), _reason(error))
        if not stat.S_ISREG(found.st_mode):
            reject(str(path), "is not a regular file")
        return cls(path, found.st_size, (found.st_dev, found.st_ino), found.st_mtime_ns)

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.path)

    def read(self, offset: int, length: int) -> bytes:
        # Checked here too: a hostile length must not become an allocation first.
        if offset < 0 or length < 0 or offset + length > self.size:
            reject(self.name, f"needs bytes {offset} to {offset + length}, but ends at {self.size}", TRUNCATED)
        target = bytearray(length)
        self.read_into(offset, memoryview(target))
        return bytes(target)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset`. Raises `CheckpointError` where the file changed since opened.

        This reads rather than maps: a file that is cut short under a memory map kills the process with SIGBUS, and
        weights are seldom aligned to the 64 bytes that jax needs to take them where they lie, so one copy is due
        anyway. Reading makes that copy in the kernel, without the interpreter's lock.
        """
        if offset < 0 or offset + len(target) > self.size:
            reject(self.name, f"needs bytes {offset} to {offset + len(target)}, but ends at {self.size}", TRUNCATED)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while target:
                    count = os.preadv(descriptor, [target[:_MAX_READ]], offset)
                    if not count:
                        break
                    offset, target = offset + count, target[count:]
                # After the read, so that a change during it is seen too.
                self._check(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            reject(self.name, _reason(error))
        if target:
            reject(self.name, f"ends at byte {offset:,}, earlier than when it was opened", TRUNCATED)

    def _check(self, descriptor: int) -> None:
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns, (now.st_dev, now.st_ino)) != (self.size, self.modified_ns, self.inode):
            change = f"from {self.size:,} to {now.st_size:,} bytes " if now.st_size != self.size else ""
            reject(self.name, f"changed {change}after its header was read", "open the checkpoint again")

    def local(
        self, advance: Callable[[int], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> "LocalFile":
        return self

    @property
    def to_fetch(self) -> int:
        return 0


TRUNCATED = "it was cut short: copy or download it again"


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (isinstance(error, OSError) and error.strerror) or str(error)
