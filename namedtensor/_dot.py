"""Contraction by name, arranged so that the compiler moves no data that it need not move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from namedtensor import _axes
from namedtensor._base import Base
from namedtensor._dtypes import element_type
from namedtensor._elementwise import check_operand, kind, same_dtype, same_sizes
from namedtensor._errors import DTypeError, did_you_mean, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor


class Contraction(Base):
    """`dot`."""

    __slots__ = ()

    def dot(self, other: Tensor, axes: str, *, dtype: Any = None) -> Tensor:
        """Sum of products over the named axes of both tensors.

        Axes that both have and that are not named are batch axes; the result keeps those and the rest of both sides.
        Products are accumulated in f32 (int32 for integers) whatever the operands' type. The result has the operands'
        type, or `dtype`: `q.dot(k, "hd", dtype="float32")` keeps the accumulator's precision.

        Raises `AxisError` where an axis is missing on one side or sizes differ, `DTypeError` where types differ.
        """
        return self._dot(other, axes, dtype)

    def _dot(self, other: Tensor, axes: str, dtype: Any, *, weight: bool = False) -> Tensor:
        """As `dot`. With `weight`, `other` is known to be one, and the rows of `self` come first in memory."""
        check_operand("dot", other, self)
        contracted = _axes.names(axes, "dot")
        for side, tensor, opposite in (("left", self, other), ("right", other, self)):
            for name in contracted:
                if name not in tensor.axes:
                    fail(
                        f"dot: {name!r} is not an axis of the {side} side ({', '.join(tensor.axes)})",
                        asked=f'left.dot(right, "{axes}")',
                        found={"left": self, "right": other},
                        fix=_hint(name, tensor, opposite),
                    )
        if kind(self.dtype) == "bool":
            fail("dot: truth values cannot be multiplied", found={"left": self}, fix="cast first", kind=DTypeError)
        same_sizes("dot", {"left": self, "right": other})
        same_dtype("dot", self, other)
        out = result_type("dot", dtype, self)
        return self._make(*contract(self, other, contracted, out, weight=weight))


def _hint(name: str, tensor: Base, opposite: Base) -> str:
    """What was meant by an axis that `tensor` does not have."""
    if name not in opposite.axes:  # a slip of the pen
        return did_you_mean(name, tensor.axes) or "contract over an axis that both sides have"
    # The other side has it: here it goes by another name, which its size may give away.
    alike = [axis for axis, size in tensor.sizes.items() if size == opposite.size(name)]
    alike = [axis for axis in alike if axis not in opposite.axes] or alike
    if len(alike) == 1:
        return f'did you mean {alike[0]!r}? If it is the same axis: .rename("{alike[0]} -> {name}")'
    return f"rename the axis to contract to {name!r} on both sides"


def contract(
    left: Base, right: Base, contracted: tuple[str, ...], out: Any, *, weight: bool = False
) -> tuple[jax.Array, tuple[str, ...]]:
    """The contraction and the axes of its result: batch, free axes of one side, free axes of the other.

    Names fix the meaning, so which operand comes first and the order of batch and contracted axes are free. They are
    chosen from how the operands are stored, never from the side on which they were written: `a.dot(b)` and `b.dot(a)`
    are one program. The larger operand (a weight, a cache) sets both orders; then only the smaller one is ever moved.
    Many texts at once are larger than a weight, though: with `weight`, the right operand is known to be one. Then it
    sets the orders and its axes come last in the result, so that what follows finds each row of the left in one piece.
    """
    small, large = sorted((left, right), key=lambda tensor: (tensor.count, tensor.axes))
    if weight:
        small, large = left, right
    contracted = tuple(name for name in large.axes if name in contracted)
    batch = tuple(name for name in large.axes if name in small.axes and name not in contracted)
    fast = _kernel(small, large, batch, contracted, out)
    x, w = (small, large) if weight or fast is not None else _rows_first(small, large, batch, contracted)
    axes = batch + _free(x, batch, contracted) + _free(w, batch, contracted)

    def general(x_array: jax.Array, w_array: jax.Array) -> jax.Array:
        # Axes that lie next to each other and play one part are one axis to the compiler, which moves operands that
        # have several of a kind before it multiplies. Batch axes it takes as they are; merging them would hide from it
        # that a cache is written in place.
        sizes = {**x.sizes, **w.sizes}
        both = [(name,) for name in batch] + _runs(contracted, x.axes, w.axes)
        x_order, x_rows = _folded(x_array, x, [*both, *_runs(_free(x, batch, contracted), x.axes)])
        w_order, w_rows = _folded(w_array, w, [*both, *_runs(_free(w, batch, contracted), w.axes)])

        def at(order: list[tuple[str, ...]], group: tuple[str, ...]) -> list[int]:
            return [order.index(run) for run in both if run[0] in group]

        product = lax.dot_general(
            x_rows,
            w_rows,
            ((at(x_order, contracted), at(w_order, contracted)), (at(x_order, batch), at(w_order, batch))),
            # Without this, f32 becomes TF32 or bf16 on accelerators: a loss that nobody asked for.
            precision=lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
            preferred_element_type=accumulator(x.dtype, out),
        )
        return product.astype(out).reshape([sizes[name] for name in axes])

    x_array, w_array = x._values(), w._values()
    if fast is None:
        return general(x_array, w_array), axes
    if isinstance(x_array, jax.core.Tracer) or isinstance(w_array, jax.core.Tracer):
        return lax.platform_dependent(x_array, w_array, cpu=fast, default=general), axes
    on_cpu = all(device.platform == "cpu" for device in w_array.devices())
    return (fast if on_cpu else general)(x_array, w_array), axes


def _free(tensor: Base, batch: tuple[str, ...], contracted: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in tensor.axes if name not in batch and name not in contracted)


def _rows_first(small: Base, large: Base, batch: tuple[str, ...], contracted: tuple[str, ...]) -> tuple[Base, Base]:
    """Which operand's own axes come before the other's in the result: as in a matrix product, the one whose rows are
    contracted; of two such, the one with more axes of its own, which is the activation and not the weight."""
    n = len(contracted)
    small_rows, large_rows = (n > 0 and tensor.axes[-n:] == contracted for tensor in (small, large))
    more = len(_free(large, batch, contracted)) > len(_free(small, batch, contracted))
    return (large, small) if large_rows and (more or not small_rows) else (small, large)


def _runs(group: tuple[str, ...], *orders: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The group cut into runs of names that follow one another in every one of `orders`."""
    runs: list[tuple[str, ...]] = []
    for name in group:
        if runs and all(order.index(name) == order.index(runs[-1][-1]) + 1 for order in orders):
            runs[-1] = (*runs[-1], name)
        else:
            runs.append((name,))
    return runs


def _folded(array: jax.Array, tensor: Base, runs: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], jax.Array]:
    """The tensor's array with each run as one axis, and the runs in the order in which they are stored."""
    sizes = tensor.sizes
    order = sorted(runs, key=lambda run: tensor.axes.index(run[0]))
    return order, array.reshape([math.prod(sizes[name] for name in run) for run in order])


def result_type(op: str, dtype: Any, operand: Base) -> Any:
    """The type of a contraction's result, which is the operands' own unless another one is asked for."""
    if dtype is None:
        return operand.dtype
    target = element_type(op, dtype)
    if kind(target) != "floating" and kind(target) != kind(operand.dtype):
        fail(
            f"{op}: a sum of {operand.dtype} products does not fit into {target}",
            asked=f'dtype="{target}"',
            fix="round or floor the result, and cast it",
            kind=DTypeError,
        )
    return target


def accumulator(operand: Any, out: Any) -> Any:
    """Type that products are summed in, as far as it must be spelled out: half types sum in f32 by themselves."""
    if kind(operand) == "integer":
        return jnp.int32 if jnp.dtype(operand).itemsize <= 4 else jnp.int64
    return out if jnp.dtype(out).itemsize > jnp.dtype(operand).itemsize else None


def _kernel(
    x: Base,
    w: Base,
    batch: tuple[str, ...],
    contracted: tuple[str, ...],
    out: Any,
) -> Any:
    """The native CPU contraction as a function of both arrays, or None where XLA's own is the better one.

    It takes over all but small products; see `_kernels`. `w` goes as it is where its axes are batch, free, contracted
    ones or batch, contracted, free ones; any other order is brought into the second of these, as XLA would do.
    """
    from namedtensor import _kernels

    x_free, w_free = _free(x, batch, contracted), _free(w, batch, contracted)
    if not contracted:
        return None
    layout = "nk" if w.axes == batch + w_free + contracted else "kn"
    sizes = {**x.sizes, **w.sizes}
    b, m, n, k = (math.prod(sizes[name] for name in group) for group in (batch, x_free, w_free, contracted))
    if not _kernels.worthwhile(b, m, n, k, dtype=x.dtype, out_dtype=out):
        return None

    def fast(x_array: jax.Array, w_array: jax.Array) -> jax.Array:
        rows = lax.transpose(x_array, [x.axes.index(name) for name in batch + x_free + contracted])
        columns = w_array
        if layout == "kn":
            columns = lax.transpose(w_array, [w.axes.index(name) for name in batch + contracted + w_free])
        product = _kernels.dot(
            rows.reshape(b, m, k),
            columns.reshape((b, n, k) if layout == "nk" else (b, k, n)),
            layout=layout,
            out_dtype=out,
        )
        return product.reshape([sizes[name] for name in batch + x_free + w_free])

    return fast
