"""A checkpoint without its tensors: names, shapes and formats, metadata, and the small files beside the weights.

It is all that compiling needs, and it changes only when they do: a build system that compiles from it need not do so
again for weights that were trained further.

`checkpoint.header.json` holds one object:

    format, version   "namedtensor checkpoint header", 1
    tensors           by name [format, size, size, ...]
    metadata          what the checkpoint's header says beside tensors, but for
    arrays            its lists of numbers: by key [dtype, value, value, ...]
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from namedtensor.checkpoint import _gguf, _json
from namedtensor.checkpoint._blob import Blob, LocalFile
from namedtensor.checkpoint._entry import Entry
from namedtensor.checkpoint._formats import PLAIN
from namedtensor.checkpoint._reject import quoted, reject

if TYPE_CHECKING:
    from namedtensor.checkpoint._discover import Contents

HEADER = "checkpoint.header.json"

_FORMAT, _VERSION = "namedtensor checkpoint header", 1
_FORMATS = PLAIN | {form.name: form for form in _gguf.FORMATS}
# Configurations, tokenizers and templates. Indexes of shards say where tensors are, and nothing that a model sees.
_BESIDE = re.compile(r"[^.].*(?<!\.index)\.(json|jinja|txt|model)")
_LARGEST_BESIDE = 64 << 20
_ARRAYS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64")


def write_header(contents: Contents, directory: Path) -> None:
    """Write the header, and copies of the files beside the weights, into `directory`, which is new or empty.

    Raises `CheckpointError` where a file beside the weights cannot be read, `FileExistsError` where there is something
    in the directory. It appears when it is complete.
    """
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise FileExistsError(0, "there is something already", str(directory))
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        whole = Path(temporary) / "header"
        whole.mkdir()
        (whole / HEADER).write_text(_text(contents), encoding="ascii")
        for name in contents.origin.list() or ():
            blob = contents.origin.find(name) if _BESIDE.fullmatch(name) and name != HEADER else None
            if blob is not None and blob.size <= _LARGEST_BESIDE:
                shutil.copyfile(blob.local().path, whole / name)
        os.replace(whole, directory)


def read(blob: Blob) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Tensors and metadata of a header that `write_header` wrote. Raises `CheckpointError` for anything else."""
    content = _json.read(blob)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        reject(blob.name, f"is not a {_FORMAT}")
    if content.get("version") != _VERSION:
        reject(blob.name, f"has version {content.get('version')!r}, where {_VERSION} is read here", "write it again")
    if content.keys() != {"format", "version", "tensors", "metadata", "arrays"} or not all(
        isinstance(content[part], dict) for part in ("tensors", "metadata", "arrays")
    ):
        reject(blob.name, "lacks a part, or has one too many", "write it again")
    absent = _Absent(blob.name)
    entries = {name: _entry(blob, absent, name, value) for name, value in content["tensors"].items()}
    arrays = {key: _array(blob, key, value) for key, value in content["arrays"].items()}
    return entries, content["metadata"] | arrays


class _Absent(Blob):
    """Where the tensors of a header are not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0

    def read(self, offset: int, length: int) -> bytes:
        self._reject()

    def local(
        self, advance: Callable[[int], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> LocalFile:
        self._reject()

    @property
    def to_fetch(self) -> int:
        return 0

    def _reject(self) -> NoReturn:
        reject(self.name, "describes a checkpoint and holds none of its weights", "give the checkpoint itself")


def _text(contents: Contents) -> str:
    arrays = {key: value for key, value in contents.metadata.items() if isinstance(value, np.ndarray)}
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "tensors": {name: [entry.format.name, *entry.shape] for name, entry in sorted(contents.entries.items())},
        "metadata": {key: value for key, value in sorted(contents.metadata.items()) if key not in arrays},
        "arrays": {key: [value.dtype.name, *value.tolist()] for key, value in sorted(arrays.items())},
    }
    return json.dumps(content, separators=(",", ":")) + "\n"


def _entry(blob: Blob, absent: Blob, name: str, value: Any) -> Entry:
    form = _FORMATS.get(value[0]) if isinstance(value, list) and value and isinstance(value[0], str) else None
    # bool is an int to Python, and no size.
    if form is None or not all(type(size) is int and size >= 0 for size in value[1:]):
        reject(blob.name, f"tensor {quoted(name)} has no format and sizes that are known")
    shape = tuple(value[1:])
    try:
        nbytes = form.nbytes(shape)
    except ValueError as error:
        reject(blob.name, f"tensor {quoted(name)} {error}")
    return Entry(name, shape, form, absent, 0, nbytes)


def _array(blob: Blob, key: str, value: Any) -> np.ndarray[Any, Any]:
    if not isinstance(value, list) or not value or value[0] not in _ARRAYS:
        reject(blob.name, f"metadata {quoted(key)} is no list of numbers")
    try:
        found = np.array(value[1:], value[0])
    except (ValueError, TypeError, OverflowError):
        reject(blob.name, f"metadata {quoted(key)} does not hold what {value[0]} can")
    if found.ndim != 1:
        reject(blob.name, f"metadata {quoted(key)} is no list of numbers")
    return found
