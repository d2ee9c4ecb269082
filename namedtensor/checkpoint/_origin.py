"""A place that holds the files of a checkpoint: a directory here, a prefix in a bucket, a repository on a hub."""

from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

from namedtensor.checkpoint._blob import Blob, LocalFile
from namedtensor.checkpoint._reject import quoted, reject


class Origin(ABC):
    """Files by name. `name` is what to call the place in a message."""

    name: str

    def find(self, file: str) -> Blob | None:
        """The file of that name, or None. Raises `CheckpointError` for a name that leads out of the place."""
        path = PurePosixPath(file)
        if not file or path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file or path.name == "":
            reject(self.name, f"refuses the file name {quoted(file)}", "name a file inside it")
        return self._find(str(path))

    @abstractmethod
    def _find(self, file: str) -> Blob | None: ...

    @abstractmethod
    def list(self) -> list[str] | None:
        """Names of the files right in the place, sorted, or None where it cannot be listed."""


class Directory(Origin):
    """A local directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def _find(self, file: str) -> Blob | None:
        path = self.path / file
        try:
            # Links are followed: the cache of huggingface_hub is made of them.
            return LocalFile.open(path) if path.is_file() else None
        except OSError as error:
            reject(self.name, f"{quoted(file)}: {error.strerror}")

    def list(self) -> list[str] | None:
        try:
            return sorted(entry.name for entry in self.path.iterdir() if entry.is_file())
        except OSError as error:
            reject(self.name, error.strerror or "cannot be listed")
