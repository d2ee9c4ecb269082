"""Arrays from and to files: .npy, .npz and .safetensors. Shapes are known, and can be refused, before data is read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from namedtensor._errors import InputError
from namedtensor.cli._output import replacing

type Array = np.ndarray[Any, np.dtype[Any]]

READABLE = (".npy", ".npz", ".safetensors")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """An array in a file, of which only the header was read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]


def stored(path: Path) -> dict[str, Stored]:
    """The arrays in a file by name; the one in an .npy file has the name "". Raises `InputError` for a bad file."""
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise InputError(f"{path}: arrays are read from {', '.join(READABLE)} files")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file" if not path.exists() else f"{path}: that is not a file")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, EOFError, MemoryError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        detail = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}: not a {path.suffix} file that can be read ({detail})") from error


def _npy(path: Path) -> dict[str, Stored]:
    # Mapped: numpy compares the header with the file's length, and nothing is read.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {"": Stored(array.shape, array.dtype, lambda: np.array(array))}


def _npz(path: Path) -> dict[str, Stored]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            with archive.open(item) as file:
                shape, fortran, dtype = _header(file)
                length = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or file.tell() + length != item.file_size:
                    raise ValueError(f"{item.filename} does not hold what its header says")
            name = item.filename.removesuffix(".npy")
            found[name] = Stored(shape, dtype, _member(path, item.filename, length, shape, dtype, fortran))
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} is not known")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _member(
    path: Path, name: str, length: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> Callable[[], Array]:
    def read() -> Array:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                _header(file)
                data = bytearray()
                while len(data) < length:
                    block = file.read(min(_BLOCK, length - len(data)))
                    if not block:
                        raise EOFError("it ends early")
                    data += block
        except (OSError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise InputError(f"{path}: {name} cannot be read ({error})") from error
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    return read


def _safetensors(path: Path) -> dict[str, Stored]:
    from namedtensor.checkpoint import Checkpoint, load

    checkpoint = Checkpoint.open(path)

    def reader(name: str, rank: int) -> Callable[[], Array]:
        def read() -> Array:
            axes = " ".join(f"axis{i}" for i in range(rank))
            return load(checkpoint.weight(name, axes), progress=False).result().numpy(axes)

        return read

    found = {}
    for name in checkpoint.names():
        shape, dtype, _, _ = checkpoint.info(name)
        assert dtype is not None
        found[name] = Stored(shape, dtype, reader(name, len(shape)))
    return found


def write(path: Path, arrays: Mapping[str, Array]) -> list[Path]:
    """Write arrays to one .npz or .safetensors file, or one .npy file each into a directory; whole or not at all.

    numpy's formats know no bfloat16 or float8; such arrays are widened to float32 there.
    """
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        with replacing(path) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
        return [path]
    plain = {name: array.astype(np.float32) if array.dtype.kind == "V" else array for name, array in arrays.items()}
    if path.suffix == ".npz":
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **plain)  # type: ignore[arg-type]
        return [path]
    written = []
    for name, array in plain.items():
        write_npy(path / f"{name}.npy", array)
        written.append(path / f"{name}.npy")
    return written


def write_npy(path: Path, array: Array) -> None:
    """Write one array to an .npy file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
