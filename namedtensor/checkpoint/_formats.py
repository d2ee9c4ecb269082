"""Element formats of stored tensors: how many bytes they take, and which dtype their values become."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

# numpy itself stops at 64 axes; no weight comes near this.
MAX_RANK = 32
# Far above any memory, far below where numpy's own arithmetic on sizes would overflow.
MAX_BYTES = 1 << 56


@dataclass(frozen=True, slots=True)
class Format:
    """How elements are stored: `block` consecutive elements of the last axis take `block_bytes` bytes.

    `dtype` is what the values become when loaded, or None for a format that is known but not decoded.
    """

    name: str
    dtype: np.dtype[Any] | None
    block: int
    block_bytes: int

    @property
    def plain(self) -> bool:
        """True where the stored bytes are the elements themselves, in the machine's order."""
        return self.block == 1 and self.dtype is not None

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes that a tensor of this shape takes. Raises `ValueError` with half a sentence where it cannot be."""
        if len(shape) > MAX_RANK:
            raise ValueError(f"has {len(shape)} axes, more than {MAX_RANK}")
        # A size of zero must not hide absurd sizes beside it: numpy refuses those even for empty arrays.
        if math.prod(max(size, 1) for size in shape) > MAX_BYTES // self.block_bytes:
            raise ValueError(f"has shape {tuple(shape)}, more than any memory holds")
        if self.block != 1 and (not shape or shape[-1] % self.block):
            raise ValueError(f"has shape {tuple(shape)}, whose last axis is not a multiple of {self.block}")
        return math.prod(shape) // self.block * self.block_bytes


def _plain(name: str, scalar: Any) -> Format:
    dtype = np.dtype(scalar)
    return Format(name, dtype, 1, dtype.itemsize)


PLAIN: dict[str, Format] = {
    form.name: form
    for form in (
        _plain("bool", np.bool_),
        _plain("u8", np.uint8),
        _plain("i8", np.int8),
        _plain("u16", np.uint16),
        _plain("i16", np.int16),
        _plain("u32", np.uint32),
        _plain("i32", np.int32),
        _plain("u64", np.uint64),
        _plain("i64", np.int64),
        _plain("f16", np.float16),
        _plain("bf16", ml_dtypes.bfloat16),
        _plain("f32", np.float32),
        _plain("f64", np.float64),
        _plain("c64", np.complex64),
        _plain("f8_e4m3", ml_dtypes.float8_e4m3fn),
        _plain("f8_e5m2", ml_dtypes.float8_e5m2),
        _plain("f8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
        _plain("f8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
        _plain("f8_e8m0", ml_dtypes.float8_e8m0fnu),
    )
}
