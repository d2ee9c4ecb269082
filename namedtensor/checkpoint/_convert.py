"""From stored bytes to elements: widening, rounding, and the block formats of GGUF."""

from typing import Any

import ml_dtypes
import numpy as np

from namedtensor.checkpoint._formats import Format

Array = np.ndarray[Any, np.dtype[Any]]
_BF16 = np.dtype(ml_dtypes.bfloat16)
_F32 = np.dtype(np.float32)


def can_convert(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """True where values keep their meaning: float to float, integer to integer or float, bool to any."""
    return stored == wanted or kind(stored) <= kind(wanted)


def kind(dtype: np.dtype[Any]) -> int:
    """0 bool, 1 integer, 2 float (of ml_dtypes too), 3 complex."""
    if dtype.kind == "b":
        return 0
    if dtype.kind in "iu":
        return 1
    return 3 if dtype.kind == "c" else 2


def convert(
    raw: Array, form: Format, out: Array, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
) -> None:
    """Decode `raw` (uint8, whole blocks) into `out` (one-dimensional, any dtype that `can_convert` allows).

    With `strides`, in elements, `raw` is all that a view of `shape` spans, and `out` gets the view in C order.
    Raises `ValueError` with half a sentence where an integer does not fit.
    """
    # A scale may be infinite, a value too large for the dtype asked for: what comes of it is for the model to see.
    with np.errstate(all="ignore"):
        _assign(_elements(raw, form, shape, strides), out)


def _elements(raw: Array, form: Format, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> Array:
    if form.block != 1:
        return _DEQUANTIZE[form.name](raw.reshape(-1, form.block_bytes)).reshape(-1)
    assert form.dtype is not None
    values = raw.view(form.dtype)
    if form.dtype.kind == "b":
        # Any byte may stand in a file, but only 0 and 1 are bools to what computes with them.
        values = raw != 0
    if strides is not None:
        steps = [step * form.dtype.itemsize for step in strides]
        values = np.lib.stride_tricks.as_strided(values, shape, steps, writeable=False).reshape(-1)
    return values


def _assign(values: Array, out: Array) -> None:
    if values.dtype == _BF16 and out.dtype == _F32:
        # numpy's own cast calls into ml_dtypes one element at a time and holds the interpreter's lock.
        np.left_shift(values.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32)
    elif values.dtype == _F32 and out.dtype == _BF16:
        _round_to_bf16(values, out)
    elif kind(values.dtype) == 1 and kind(out.dtype) == 1:
        limits = np.iinfo(out.dtype)
        if values.size and (int(values.min()) < limits.min or int(values.max()) > limits.max):
            raise ValueError(f"holds {values.min()} to {values.max()}, which do not fit {out.dtype}")
        np.copyto(out, values, casting="unsafe")
    else:
        np.copyto(out, values, casting="unsafe")


def _round_to_bf16(values: Array, out: Array) -> None:
    """Round to nearest, ties to even, as the hardware does; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    np.copyto(out.view(np.uint16), rounded, casting="unsafe")
    nan = np.isnan(values)
    if nan.any():
        out[nan] = np.nan


def _q8_0(blocks: Array) -> Array:
    """32 elements: one f16 scale, 32 signed bytes."""
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    values = blocks[:, 2:].view(np.int8).astype(np.float32)
    values *= scale
    return values


def _q4_0(blocks: Array) -> Array:
    """32 elements: one f16 scale, 16 bytes whose low halves are elements 0 to 15 and high halves 16 to 31, less 8."""
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    values = np.empty((len(blocks), 32), np.float32)
    np.subtract(blocks[:, 2:] & np.uint8(15), np.float32(8), out=values[:, :16])
    np.subtract(blocks[:, 2:] >> np.uint8(4), np.float32(8), out=values[:, 16:])
    values *= scale
    return values


_DEQUANTIZE = {"q8_0": _q8_0, "q4_0": _q4_0}
