"""What a checkpoint's header says about one tensor, and the weight that a model declares from it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from namedtensor.checkpoint._blob import Blob, LocalFile
from namedtensor.checkpoint._formats import Format

if TYPE_CHECKING:
    from namedtensor.checkpoint._zip import Record


class TensorInfo(NamedTuple):
    """What the header says of one stored tensor.

    `shape` is in numpy's order, `dtype` what its values have once loaded (None for a format that is not decoded),
    `nbytes` what it takes in the file, `format` how it is stored: `bf16`, `q8_0`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    nbytes: int
    format: str


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One stored tensor: where its bytes are, and what they mean. All of it checked when the header was read."""

    name: str
    shape: tuple[int, ...]
    format: Format
    blob: Blob
    # Of the first byte: in the blob, or in `record` where the blob is a zip file.
    offset: int
    nbytes: int
    # In elements, where the tensor is not stored in C order.
    strides: tuple[int, ...] | None = None
    record: "Record | None" = None

    def position(self, file: LocalFile) -> int:
        """Where the first byte lies in the file itself."""
        return self.offset if self.record is None else self.record.data_offset(file) + self.offset

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.shape, self.format.dtype, self.nbytes, self.format.name)


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that a model declared and nobody has read yet: a shape and a dtype, and where the bytes are.

    It stands where an array will: as the leaf of a `Tensor`. `nt.load` puts a jax array in its place. jax takes it
    for a shape, so `jax.eval_shape` works on a model of weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    entry: Entry

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it takes once loaded."""
        return self.size * self.dtype.itemsize

    @property
    def source(self) -> str:
        """The file that holds it: a path or an address."""
        return self.entry.blob.name

    def __repr__(self) -> str:
        stored = "" if self.entry.format.dtype == self.dtype else f" stored as {self.entry.format.name}"
        return f"Weight({self.name!r}, {self.shape}, {self.dtype}{stored}, {self.source})"
