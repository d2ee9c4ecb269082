"""Elementwise operations: operands aligned by name, never by position, and never promoted between types."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from namedtensor._base import Base, Scalar
from namedtensor._dtypes import element_type
from namedtensor._errors import AxisError, DTypeError, closest, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor

    type Operand = Tensor | Scalar


def is_scalar(value: Any) -> bool:
    """A Python number or a numpy scalar: it takes the tensor's type, as a literal does."""
    return isinstance(value, (bool, int, float, np.generic))


def kind(dtype: Any) -> str:
    if dtype == jnp.bool_:
        return "bool"
    if jnp.issubdtype(dtype, jnp.floating):
        return "floating"
    return "integer" if jnp.issubdtype(dtype, jnp.integer) else "other"


def check_operand(op: str, value: Any, other: Base) -> None:
    if isinstance(value, Base):
        return
    axes = " ".join(other.axes[-getattr(value, "ndim", 0) :]) if getattr(value, "ndim", 0) else ""
    fail(
        f"{op}: the other side is not a tensor with named axes",
        found={"tensor": other, "other": value},
        fix=f'name its axes: nt.wrap(array, "{axes}")' if hasattr(value, "shape") else "a Tensor or a number is needed",
        kind=DTypeError,
    )


def literal(op: str, value: Any, like: Base) -> jax.Array:
    """A Python number in the type of `like`; refused where that type cannot hold it."""
    return literal_of(op, value, like.dtype, {"tensor": like})


def literal_of(op: str, value: Any, dtype: Any, found: dict[str, Any]) -> jax.Array:
    """A Python number in type `dtype`; refused where that type cannot hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        fail(f"{op}: {value!r} is not a real number", found=found, kind=DTypeError)
    target = kind(dtype)
    if target != "floating" and isinstance(value, float) and not isinstance(value, bool):
        fail(
            f"{op}: {value} is not an integer, which {dtype} needs",
            found=found,
            fix='cast the tensor first: x.cast("float32")',
            kind=DTypeError,
        )
    if target == "bool" and not isinstance(value, bool):
        fail(
            f"{op}: {value} meets a tensor of truth values",
            found=found,
            fix='cast the tensor first: x.cast("int32")',
            kind=DTypeError,
        )
    if target == "integer" and not isinstance(value, bool):
        info = jnp.iinfo(dtype)
        if not info.min <= value <= info.max:
            fail(f"{op}: {value} does not fit into {dtype}", found=found, kind=DTypeError)
    if target == "floating" and math.isfinite(value) and abs(value) > float(jnp.finfo(dtype).max):
        fail(
            f"{op}: {value} does not fit into {dtype}, whose largest number is {float(jnp.finfo(dtype).max):.6g}",
            found=found,
            fix="float('inf') says infinity",
            kind=DTypeError,
        )
    return jnp.asarray(value, dtype)


def same_dtype(op: str, left: Base, right: Base, labels: tuple[str, str] = ("left", "right")) -> None:
    if left.dtype == right.dtype:
        return
    both = kind(left.dtype) == kind(right.dtype) == "floating"
    wide = left if jnp.dtype(left.dtype).itemsize >= jnp.dtype(right.dtype).itemsize else right
    narrow = labels[1] if wide is left else labels[0]
    fail(
        f"{op}: {left.dtype} meets {right.dtype}" + (", and floating types are never promoted silently" * both),
        found={labels[0]: left, labels[1]: right},
        fix=f'cast one of them, for example the {narrow} one: .cast("{wide.dtype}")',
        kind=DTypeError,
    )


def same_sizes(op: str, tensors: dict[str, Base]) -> None:
    """Raise where two tensors give one name different sizes."""
    known: dict[str, tuple[int, str]] = {}
    for label, tensor in tensors.items():
        for name, size in tensor.sizes.items():
            first, where = known.setdefault(name, (size, label))
            if first != size:
                fail(
                    f"{op}: axis {name!r} has size {first} on one side and {size} on the other",
                    found=dict(tensors),
                    fix=f"slice one of them, or rename one: {name!r} means two things here ({where}, {label})",
                )


def superset(op: str, tensors: dict[str, Base]) -> tuple[str, ...]:
    """The axes of the tensor that has them all, in its order. Raises where none has: no silent outer product."""
    same_sizes(op, tensors)
    widest = max(tensors.values(), key=lambda t: len(t.axes))
    for label, tensor in tensors.items():
        extra = [name for name in tensor.axes if name not in widest.axes]
        if extra:
            lacking = [name for name in widest.axes if name not in tensor.axes]
            size = tensor.size(extra[0])
            guess = closest(extra[0], [name for name in lacking if widest.size(name) == size])
            hint = f'rename it if it is the same axis: .rename("{extra[0]} -> {guess}"); ' if guess else ""
            fail(
                f"{op}: neither side has all axes of the other ({label} brings {extra[0]!r}, lacks {lacking[0]!r})",
                found=dict(tensors),
                fix=f"{hint}if the outer product is meant, say so: .broadcast({extra[0]}={size})",
            )
    return widest.axes


def aligned(tensor: Base, order: tuple[str, ...]) -> jax.Array:
    """The array with its axes in `order`, size one where `tensor` lacks the axis."""
    values = tensor._transposed(tuple(name for name in order if name in tensor.axes))
    if len(tensor.axes) == len(order):
        return values
    missing = [i for i, name in enumerate(order) if name not in tensor.axes]
    return lax.expand_dims(values, missing) if tensor.axes else values


def binary(op: str, fn: Callable[..., jax.Array], left: Any, right: Any) -> Tensor:
    """Apply `fn` to two operands, at least one of them a tensor, aligned by name."""
    if not isinstance(left, Base):
        if not is_scalar(left):
            check_operand(op, left, right)
        _fitting(op, right)
        return right._make(fn(literal(op, left, right), right._values()), right.axes)
    _fitting(op, left)
    if is_scalar(right):
        return left._make(fn(left._values(), literal(op, right, left)), left.axes)
    check_operand(op, right, left)
    order = superset(op, {"left": left, "right": right})
    same_dtype(op, left, right)
    return left._make(fn(aligned(left, order), aligned(right, order)), order)


_ON_NUMBERS = frozenset(["+", "-", "*", "//", "%", "**", "negative", "abs", "sign", "square"])
_ON_INTEGERS = frozenset(("<<", ">>"))
_ON_BITS = frozenset(("&", "|", "^", "~"))


def _fitting(op: str, tensor: Base) -> None:
    """Raise where the operation has no meaning for the tensor's type, or another one than the reader would think."""
    found = kind(tensor.dtype)
    if op in _ON_NUMBERS and found == "bool":
        fail(
            f"{op}: numbers are needed, not truth values",
            found={"tensor": tensor},
            fix='logic is written & | ^ ~; to count: x.cast("int32")',
            kind=DTypeError,
        )
    if (op in _ON_BITS and found == "floating") or (op in _ON_INTEGERS and found != "integer"):
        fail(
            f"{op}: integers are needed, not {tensor.dtype}",
            found={"tensor": tensor},
            fix='compare first: x > 0, or cast: x.cast("int32")',
            kind=DTypeError,
        )


def floating(op: str, tensor: Base) -> None:
    if kind(tensor.dtype) != "floating":
        fail(
            f"{op}: a floating type is needed, not {tensor.dtype}",
            found={"tensor": tensor},
            fix='cast it first: x.cast("float32")',
            kind=DTypeError,
        )


def _lowest(dtype: Any) -> Any:
    match kind(dtype):
        case "bool":
            return False
        case "floating":
            return jnp.finfo(dtype).min
    return jnp.iinfo(dtype).min


class Elementwise(Base):
    """Arithmetic, comparison and unary functions. The axes of one side must be a subset of the other's."""

    __slots__ = ()

    def _unary(self, fn: Callable[[jax.Array], jax.Array]) -> Tensor:
        return self._make(fn(self._values()), self._axes)

    def _number(self, op: str, fn: Callable[[jax.Array], jax.Array]) -> Tensor:
        _fitting(op, self)
        return self._unary(fn)

    def _float(self, op: str, fn: Callable[[jax.Array], jax.Array]) -> Tensor:
        floating(op, self)
        return self._unary(fn)

    def __add__(self, other: Operand) -> Tensor:
        return binary("+", jnp.add, self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return binary("+", jnp.add, other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return binary("-", jnp.subtract, self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return binary("-", jnp.subtract, other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return binary("*", jnp.multiply, self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return binary("*", jnp.multiply, other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        self._no_integer_division()
        return binary("/", jnp.divide, self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        self._no_integer_division()
        return binary("/", jnp.divide, other, self)

    def _no_integer_division(self) -> None:
        if kind(self.dtype) != "floating":
            fail(
                f"/: dividing {self.dtype} would leave the integers",
                found={"tensor": self},
                fix='use // for integer division, or cast first: x.cast("float32")',
                kind=DTypeError,
            )

    def __floordiv__(self, other: Operand) -> Tensor:
        return binary("//", jnp.floor_divide, self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return binary("//", jnp.floor_divide, other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return binary("%", jnp.remainder, self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return binary("%", jnp.remainder, other, self)

    def __pow__(self, other: Operand) -> Tensor:
        if isinstance(other, (int, np.integer)) and not isinstance(other, bool):
            if other < 0 and kind(self.dtype) == "integer":
                fail(
                    f"**: {self.dtype} to the power {other} would leave the integers",
                    found={"tensor": self},
                    fix='cast first: x.cast("float32")',
                    kind=DTypeError,
                )
            return self._number("**", lambda a: lax.integer_pow(a, int(other)))
        return binary("**", jnp.power, self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return binary("**", jnp.power, other, self)

    def __and__(self, other: Operand) -> Tensor:
        return binary("&", jnp.bitwise_and, self, other)

    def __or__(self, other: Operand) -> Tensor:
        return binary("|", jnp.bitwise_or, self, other)

    def __xor__(self, other: Operand) -> Tensor:
        return binary("^", jnp.bitwise_xor, self, other)

    def __lshift__(self, other: Operand) -> Tensor:
        return binary("<<", jnp.left_shift, self, other)

    def __rshift__(self, other: Operand) -> Tensor:
        return binary(">>", jnp.right_shift, self, other)

    def __invert__(self) -> Tensor:
        _fitting("~", self)
        return self._unary(jnp.bitwise_not)

    def __neg__(self) -> Tensor:
        return self._number("negative", jnp.negative)

    def __abs__(self) -> Tensor:
        return self._number("abs", jnp.abs)

    def __lt__(self, other: Operand) -> Tensor:
        return binary("<", jnp.less, self, other)

    def __le__(self, other: Operand) -> Tensor:
        return binary("<=", jnp.less_equal, self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return binary(">", jnp.greater, self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return binary(">=", jnp.greater_equal, self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("==", jnp.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("!=", jnp.not_equal, self, other)

    # Comparison is elementwise, so identity is what a tensor hashes by.
    __hash__ = object.__hash__

    def maximum(self, other: Operand) -> Tensor:
        """The larger of each pair; NaN where either is."""
        return binary("maximum", jnp.maximum, self, other)

    def minimum(self, other: Operand) -> Tensor:
        """The smaller of each pair; NaN where either is."""
        return binary("minimum", jnp.minimum, self, other)

    def clip(self, low: Operand, high: Operand) -> Tensor:
        """Values held between `low` and `high`."""
        return self.maximum(low).minimum(high)

    def abs(self) -> Tensor:
        """Absolute value."""
        return self._number("abs", jnp.abs)

    def sign(self) -> Tensor:
        """-1, 0 or 1, in the tensor's type."""
        return self._number("sign", jnp.sign)

    def square(self) -> Tensor:
        """x · x."""
        return self._number("square", jnp.square)

    def exp(self) -> Tensor:
        """e to the x. Floating types only, like all functions below."""
        return self._float("exp", jnp.exp)

    def expm1(self) -> Tensor:
        """exp(x) - 1, exact near zero."""
        return self._float("expm1", jnp.expm1)

    def log(self) -> Tensor:
        """Natural logarithm."""
        return self._float("log", jnp.log)

    def log1p(self) -> Tensor:
        """log(1 + x), exact near zero."""
        return self._float("log1p", jnp.log1p)

    def sqrt(self) -> Tensor:
        """Square root."""
        return self._float("sqrt", jnp.sqrt)

    def rsqrt(self) -> Tensor:
        """1 / sqrt(x)."""
        return self._float("rsqrt", lax.rsqrt)

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return self._float("reciprocal", jnp.reciprocal)

    def sin(self) -> Tensor:
        """Sine of an angle in radians."""
        return self._float("sin", jnp.sin)

    def cos(self) -> Tensor:
        """Cosine of an angle in radians."""
        return self._float("cos", jnp.cos)

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return self._float("tanh", jnp.tanh)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return self._float("sigmoid", jax.nn.sigmoid)

    def erf(self) -> Tensor:
        """Error function."""
        return self._float("erf", lax.erf)

    def floor(self) -> Tensor:
        """Largest whole number that is not above."""
        return self._float("floor", jnp.floor)

    def ceil(self) -> Tensor:
        """Smallest whole number that is not below."""
        return self._float("ceil", jnp.ceil)

    def round(self) -> Tensor:
        """Nearest whole number, halves to even."""
        return self._float("round", jnp.round)

    def isnan(self) -> Tensor:
        """Where the value is not a number."""
        return self._float("isnan", jnp.isnan)

    def isfinite(self) -> Tensor:
        """Where the value is neither infinite nor NaN."""
        return self._float("isfinite", jnp.isfinite)

    def cast(self, dtype: Any) -> Tensor:
        """The values in another element type: a name such as `"bfloat16"`, or a numpy or jax type."""
        return self._make(self._values().astype(element_type("cast", dtype, {"tensor": self})), self._axes)

    def mask(self, keep: Tensor, fill: float | None = None) -> Tensor:
        """Values where `keep` is true, `fill` elsewhere; by default the lowest value of the type, for softmax.

        The axes of `keep` must be a subset of this tensor's, its type bool.
        """
        check_operand("mask", keep, self)
        if keep.dtype != jnp.bool_:
            fail(
                f"mask: truth values are needed, not {keep.dtype}",
                found={"values": self, "keep": keep},
                fix="compare first: keep != 0",
                kind=DTypeError,
            )
        extra = [name for name in keep.axes if name not in self._axes]
        if extra:
            guess = closest(extra[0], self._axes) or "..."
            fail(
                f"mask: {extra[0]!r} is an axis of the mask and not of the values",
                found={"values": self, "keep": keep},
                fix=f'rename it to the axis it masks: .rename("{extra[0]} -> {guess}")',
                kind=AxisError,
            )
        same_sizes("mask", {"values": self, "keep": keep})
        if fill is None:
            value = jnp.asarray(_lowest(self.dtype), self.dtype)
        else:
            value = literal("mask", fill, self)
        return self._make(jnp.where(aligned(keep, self._axes), self._values(), value), self._axes)
