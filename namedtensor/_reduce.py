"""Reductions and everything else that runs along named axes: softmax, argmax, sort, top-k, cumulative sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from namedtensor._base import Base
from namedtensor._elementwise import floating, kind
from namedtensor._errors import DTypeError, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor


class Reductions(Base):
    """Operations over one or several named axes."""

    __slots__ = ()

    def _reduce(self, op: str, fn: Callable[..., jax.Array], axes: str | None, *, nonempty: bool = False) -> Tensor:
        positions = self._positions(axes, op)
        if nonempty and any(self._array.shape[p] == 0 for p in positions):
            fail(
                f"{op}: there is nothing to reduce, an axis is empty", asked=f'x.{op}("{axes}")', found={"tensor": self}
            )
        kept = [name for i, name in enumerate(self._axes) if i not in positions]
        return self._make(fn(self._values(), axis=positions), kept)

    def sum(self, axes: str | None = None) -> Tensor:
        """Sum over `axes`. Half types are summed in f32; the result keeps the tensor's type (bool counts, in int32).

        Small integer types wrap around as theirs do: cast them first.
        """
        if self.dtype == jnp.bool_:
            return self._reduce("sum", lambda a, axis: jnp.sum(a, axis=axis, dtype=jnp.int32), axes)
        return self._reduce("sum", lambda a, axis: jnp.sum(a, axis=axis, dtype=a.dtype), axes)

    def mean(self, axes: str | None = None) -> Tensor:
        """Mean over `axes`, accumulated in f32 or wider."""
        floating("mean", self)
        return self._reduce("mean", jnp.mean, axes, nonempty=True)

    def var(self, axes: str | None = None) -> Tensor:
        """Population variance over `axes` (divided by the count, not by count - 1)."""
        floating("var", self)
        return self._reduce("var", jnp.var, axes, nonempty=True)

    def std(self, axes: str | None = None) -> Tensor:
        """Population standard deviation over `axes`."""
        floating("std", self)
        return self._reduce("std", jnp.std, axes, nonempty=True)

    def prod(self, axes: str | None = None) -> Tensor:
        """Product over `axes`. Needs numbers."""
        self._numbers("prod")
        return self._reduce("prod", lambda a, axis: jnp.prod(a, axis=axis, dtype=a.dtype), axes)

    def max(self, axes: str | None = None) -> Tensor:
        """Largest value over `axes`; NaN where one is."""
        return self._reduce("max", jnp.max, axes, nonempty=True)

    def min(self, axes: str | None = None) -> Tensor:
        """Smallest value over `axes`; NaN where one is."""
        return self._reduce("min", jnp.min, axes, nonempty=True)

    def any(self, axes: str | None = None) -> Tensor:
        """Whether one is true over `axes`. Needs truth values."""
        self._truth("any")
        return self._reduce("any", jnp.any, axes)

    def all(self, axes: str | None = None) -> Tensor:
        """Whether every one is true over `axes`. Needs truth values."""
        self._truth("all")
        return self._reduce("all", jnp.all, axes)

    def _truth(self, op: str) -> None:
        if self.dtype != jnp.bool_:
            fail(
                f"{op}: truth values are needed, not {self.dtype}",
                found={"tensor": self},
                fix="compare first: (x != 0)",
                kind=DTypeError,
            )

    def logsumexp(self, axes: str | None = None) -> Tensor:
        """log(sum(exp(x))) over `axes`, computed without overflow, in f32 or wider."""
        floating("logsumexp", self)
        wide = self._wide()
        result = wide._reduce("logsumexp", jax.nn.logsumexp, axes)
        return result.cast(self.dtype)

    def softmax(self, axes: str | None = None) -> Tensor:
        """exp(x) / sum(exp(x)) over `axes`, computed in f32 or wider; the result keeps the type."""
        return self._normalized("softmax", jax.nn.softmax, axes)

    def log_softmax(self, axes: str | None = None) -> Tensor:
        """Logarithm of the softmax over `axes`, computed in f32 or wider."""
        return self._normalized("log_softmax", jax.nn.log_softmax, axes)

    def _wide(self) -> Tensor:
        values = self._values()
        return self._make(values.astype(jnp.promote_types(values.dtype, jnp.float32)), self._axes)

    def _normalized(self, op: str, fn: Callable[..., jax.Array], axes: str | None) -> Tensor:
        floating(op, self)
        positions = self._positions(axes, op)
        return self._make(fn(self._wide()._array, axis=positions).astype(self.dtype), self._axes)

    # -- along one axis -------------------------------------------------------------------------------------------

    def _along(self, op: str, axis: str | None) -> int:
        if axis is None:
            self._positions(None, op)
        return self._position(axis, op)  # type: ignore[arg-type]

    def argmax(self, axis: str | None = None) -> Tensor:
        """Position of the largest value along `axis`, int32; the first of several, or of the NaNs."""
        return self._arg("argmax", jnp.argmax, axis)

    def argmin(self, axis: str | None = None) -> Tensor:
        """Position of the smallest value along `axis`, int32; the first of several, or of the NaNs."""
        return self._arg("argmin", jnp.argmin, axis)

    def _arg(self, op: str, fn: Callable[..., jax.Array], axis: str | None) -> Tensor:
        position = self._along(op, axis)
        if self._array.shape[position] == 0:
            fail(f"{op}: axis {axis!r} is empty", found={"tensor": self})
        kept = [name for name in self._axes if name != axis]
        return self._make(fn(self._values(), axis=position).astype(jnp.int32), kept)

    def sort(self, axis: str | None = None, *, descending: bool = False) -> Tensor:
        """Values in order along `axis`; stable."""
        position = self._along("sort", axis)
        return self._make(jnp.sort(self._values(), axis=position, stable=True, descending=descending), self._axes)

    def argsort(self, axis: str | None = None, *, descending: bool = False) -> Tensor:
        """Positions that would put `axis` in order, int32; stable."""
        position = self._along("argsort", axis)
        order = jnp.argsort(self._values(), axis=position, stable=True, descending=descending)
        return self._make(order.astype(jnp.int32), self._axes)

    def top_k(self, axis: str, k: int) -> tuple[Tensor, Tensor]:
        """The `k` largest values along `axis`, largest first, and their positions (int32)."""
        position = self._along("top_k", axis)
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 0 < k <= self._array.shape[position]:
            fail(
                f"top_k: k must be between 1 and the size of {axis!r}",
                asked=f'x.top_k("{axis}", {k})',
                found={"tensor": self},
            )
        values, indices = lax.top_k(jnp.moveaxis(self._values(), position, -1), int(k))
        order = [n for n in self._axes if n != axis] + [axis]
        return self._make(values, order), self._make(indices.astype(jnp.int32), order)

    def cumsum(self, axis: str | None = None) -> Tensor:
        """Running sum along `axis`, the current element included, in f32 or wider for floating types."""
        return self._running("cumsum", jnp.cumsum, axis)

    def cumprod(self, axis: str | None = None) -> Tensor:
        """Running product along `axis`, the current element included, in f32 or wider for floating types."""
        return self._running("cumprod", jnp.cumprod, axis)

    def cummax(self, axis: str | None = None) -> Tensor:
        """Running maximum along `axis`, the current element included."""
        return self._running("cummax", lambda a, axis, **_: lax.cummax(a, axis=axis), axis)

    def _running(self, op: str, fn: Callable[..., jax.Array], axis: str | None) -> Tensor:
        position = self._along(op, axis)
        self._numbers(op)
        wide = self._wide()._array if kind(self.dtype) == "floating" else self._values()
        return self._make(fn(wide, axis=position).astype(self.dtype), self._axes)

    def _numbers(self, op: str) -> None:
        if kind(self.dtype) == "bool":
            fail(
                f"{op}: numbers are needed, not truth values",
                found={"tensor": self},
                fix='cast first: x.cast("int32")',
                kind=DTypeError,
            )

    def flip(self, axes: str | None = None) -> Tensor:
        """Order reversed along `axes`."""
        return self._make(lax.rev(self._values(), self._positions(axes, "flip")), self._axes)

    def roll(self, axis: str, shift: int) -> Tensor:
        """Elements moved `shift` places up along `axis`, the last ones coming in at the front."""
        position = self._along("roll", axis)
        if isinstance(shift, bool) or not isinstance(shift, (int, np.integer)):
            fail(f"roll: {shift!r} is not a number of places", found={"tensor": self})
        return self._make(jnp.roll(self._values(), shift, axis=position), self._axes)

    def norm(self, axes: str | None = None) -> Tensor:
        """Euclidean length over `axes`, accumulated in f32 or wider."""
        floating("norm", self)
        return self._wide().square().sum(axes).sqrt().cast(self.dtype)
