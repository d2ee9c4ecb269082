"""Dots and convolutions as sums over strides: every layout that XLA may choose becomes the same few numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from namedtensor.export.cpu._hlo import DTYPES, order_of


class Unknown(Exception):
    """What the native device cannot run, as a clause that ends an error's first line."""


@dataclass(frozen=True)
class Operand:
    """An operand or result: its place in memory and XLA's shape of it."""

    at: list[int]
    shape: Any

    @property
    def dtype(self) -> str:
        if self.shape.element_type not in DTYPES:
            raise Unknown(f"XLA's element type {self.shape.element_type} is not supported")
        return str(DTYPES[self.shape.element_type])


#: Types that products and sums of contractions may have: operands, result.
_DOTS = {
    *((one, one) for one in ("float16", "bfloat16", "float32", "float64", "int32")),
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("int8", "int32"),
}
_CONVOLUTIONS = {("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "float32"), ("float64", "float64")}


def strides(shape: Any) -> list[int]:
    """Elements between neighbours along each axis."""
    found = [0] * len(shape.dimensions)
    step = 1
    for axis in reversed(order_of(shape)):
        found[axis] = step
        step *= shape.dimensions[axis]
    return found


def _merged(shape: Any, axes: list[int]) -> tuple[int, int]:
    """Size and stride of a group of axes as one axis, the first outermost."""
    sizes, steps = [shape.dimensions[a] for a in axes], strides(shape)
    kept = [(size, steps[axis]) for size, axis in zip(sizes, axes, strict=True) if size != 1]
    for (_, outer), (size, inner) in itertools.pairwise(kept):
        if outer != size * inner:
            raise Unknown("axes that belong together do not lie together in memory")
    return math.prod(sizes), kept[-1][1] if kept else 0


def dot(dimensions: Any, lhs: Operand, rhs: Operand, out: Operand) -> dict[str, Any]:
    """XLA's dot: the result's axes are the batch, then what is left of the left side, then of the right side."""
    lhs_batch, rhs_batch = list(dimensions.lhs_batch_dimensions), list(dimensions.rhs_batch_dimensions)
    lhs_sum, rhs_sum = list(dimensions.lhs_contracting_dimensions), list(dimensions.rhs_contracting_dimensions)
    lhs_free = [a for a in range(len(lhs.shape.dimensions)) if a not in (*lhs_batch, *lhs_sum)]
    rhs_free = [a for a in range(len(rhs.shape.dimensions)) if a not in (*rhs_batch, *rhs_sum)]
    ends = [0, len(lhs_batch), len(lhs_batch) + len(lhs_free), len(lhs_batch) + len(lhs_free) + len(rhs_free)]
    if len(out.shape.dimensions) != ends[-1]:
        raise Unknown("its result has another rank than its operands give")
    out_batch, out_m, out_n = (list(range(start, stop)) for start, stop in itertools.pairwise(ends))
    return _step(
        (lhs, lhs_batch, lhs_free, lhs_sum), (rhs, rhs_batch, rhs_sum, rhs_free), (out, out_batch, out_m, out_n)
    )


def native_dot(layout: str, x: Operand, w: Operand, out: Operand) -> dict[str, Any]:
    """The call nt.dot: x (batch, m, k), w (batch, n, k) or (batch, k, n), result (batch, m, n)."""
    if any(len(operand.shape.dimensions) != 3 for operand in (x, w, out)):
        raise Unknown("its operands do not have three axes")
    k, n = (2, 1) if layout == "nk" else (1, 2)
    return _step((x, [0], [1], [2]), (w, [0], [k], [n]), (out, [0], [1], [2]))


_Side = tuple[Operand, list[int], list[int], list[int]]


def _step(lhs: _Side, rhs: _Side, out: _Side) -> dict[str, Any]:
    """`out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, k, n]`; each with strides in elements."""
    groups = []
    for operand, *axes in (lhs, rhs, out):
        groups.append([_merged(operand.shape, group) for group in axes])
    (lb, m, lk), (rb, rk, n), (ob, om, on) = groups
    if not (lb[0] == rb[0] == ob[0] and lk[0] == rk[0] and m[0] == om[0] and n[0] == on[0]):
        raise Unknown("the sizes of its operands do not fit together")
    types = lhs[0].dtype, out[0].dtype
    if rhs[0].dtype != types[0] or types not in _DOTS:
        raise Unknown(f"it multiplies {lhs[0].dtype} with {rhs[0].dtype} into {types[1]}")
    return {
        "step": "dot",
        "dtype": types[0],
        "out_dtype": types[1],
        "batch": lb[0],
        "m": m[0],
        "n": n[0],
        "k": lk[0],
        "lhs": {"at": lhs[0].at, "strides": [lb[1], m[1], lk[1]]},
        "rhs": {"at": rhs[0].at, "strides": [rb[1], rk[1], n[1]]},
        "out": {"at": out[0].at, "strides": [ob[1], om[1], on[1]]},
    }


def convolution(conv: Any, x: Operand, kernel: Operand, out: Operand) -> dict[str, Any]:
    """A convolution over one to three axes.

    Sizes and strides come as batch or outputs, channels, then each spatial axis.
    """
    numbers = conv.dimension_numbers
    if (x.dtype, out.dtype) not in _CONVOLUTIONS or kernel.dtype != x.dtype:
        raise Unknown(f"it convolves {x.dtype} with {kernel.dtype} into {out.dtype}")
    if any(window.window_reversal for window in conv.window.dimensions):
        raise Unknown("its kernel is reversed")

    def sides(operand: Operand, axes: list[int]) -> dict[str, Any]:
        steps = strides(operand.shape)
        return {
            "at": operand.at,
            "sizes": [operand.shape.dimensions[axis] for axis in axes],
            "strides": [steps[axis] for axis in axes],
        }

    return {
        "step": "convolution",
        "dtype": x.dtype,
        "groups": conv.feature_group_count,
        "x": sides(
            x,
            [numbers.input_batch_dimension, numbers.input_feature_dimension, *numbers.input_spatial_dimensions],
        ),
        "kernel": sides(
            kernel,
            [
                numbers.kernel_output_feature_dimension,
                numbers.kernel_input_feature_dimension,
                *numbers.kernel_spatial_dimensions,
            ],
        ),
        "out": sides(
            out,
            [numbers.output_batch_dimension, numbers.output_feature_dimension, *numbers.output_spatial_dimensions],
        ),
        "window": [
            {
                "stride": window.stride,
                "padding": window.padding_low,
                "dilation": window.window_dilation,
                "base_dilation": window.base_dilation,
            }
            for window in conv.window.dimensions
        ],
    }
