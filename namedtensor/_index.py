"""Slices, gather and scatter by name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import jax
import jax.numpy as jnp
from jax import lax

from namedtensor._base import Base, Scalar
from namedtensor._elementwise import aligned, check_operand, is_scalar, kind, literal, same_dtype, same_sizes
from namedtensor._errors import DTypeError, closest, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor

type Mode = Literal["set", "add", "mul", "max", "min"]

_SCATTER: dict[str, Callable[..., jax.Array]] = {
    "set": lax.scatter,
    "add": lax.scatter_add,
    "mul": lax.scatter_mul,
    "max": lax.scatter_max,
    "min": lax.scatter_min,
}


class Indexing(Base):
    """Parts of a tensor, at places known while tracing (`int`) or only when the program runs (`Tensor`).

    A place given as an `int` is checked. A place given as a tensor cannot be: reads and slices clamp it to the nearest
    place that exists (-1 is the first, not the last), a scatter leaves it out.
    """

    __slots__ = ()

    def index(self, axis: str, place: SupportsIndex | Tensor) -> Tensor:
        """The tensor at one place along `axis`, without that axis.

        `place` is an `int`, negative from the end and checked, or a scalar integer tensor, clamped to the axis.
        """
        position = self._position(axis, "index")
        rest = [name for name in self._axes if name != axis]
        values = self._values()
        if isinstance(place, Base):
            if place.axes:
                fail(
                    f"index: the place has axes ({', '.join(place.axes)}); index takes one place",
                    asked=f'x.index("{axis}", place)',
                    found={"tensor": self, "place": place},
                    fix=f'x.gather("{axis}", place) looks up many',
                )
            self._nonempty(axis, position, "index")
            start = _places("index", place)
            return self._make(lax.squeeze(_dynamic_slice(values, start, 1, position), (position,)), rest)
        at = self._static("index", axis, "place", place, last=values.shape[position] - 1)
        return self._make(lax.index_in_dim(values, at, position, keepdims=False), rest)

    def slice(
        self, axis: str, start: SupportsIndex, stop: SupportsIndex | None = None, step: SupportsIndex = 1
    ) -> Tensor:
        """Elements `start` up to and without `stop` along `axis`, every `step`-th; up to the end without `stop`.

        Places count from 0, negative ones from the end. Unlike Python's slices these are checked: a place outside the
        axis, or a `stop` before `start`, is an error.
        """
        position = self._position(axis, "slice")
        size = self._array.shape[position]
        asked = f'x.slice("{axis}", {start}' + (f", {stop})" if stop is not None else ")")
        first = self._static("slice", axis, "start", start, last=size, asked=asked)
        last = size if stop is None else self._static("slice", axis, "stop", stop, last=size, asked=asked)
        stride = _whole(step)
        if last < first or stride is None or stride < 1:
            fail(
                f"slice: stop {last} lies before start {first}"
                if last < first
                else f"slice: step={step!r} is not a whole number from 1",
                asked=f'x.slice("{axis}", {start}, {stop}, {step})',
                found={"tensor": self},
                fix=None if last < first else f'for the opposite order: x.flip("{axis}")',
            )
        return self._make(lax.slice_in_dim(self._values(), first, last, stride, position), self._axes)

    def dynamic_slice(self, axis: str, start: SupportsIndex | Tensor, size: SupportsIndex) -> Tensor:
        """`size` elements along `axis` from `start` on, a place known only when the program runs.

        `start` is an integer tensor. Its axes, if any, must be axes of this tensor other than `axis`: each of their
        elements gets a slice of its own. It is clamped so that the slice lies inside the axis.
        """
        position = self._position(axis, "dynamic_slice")
        width = self._width("dynamic_slice", axis, size, self._array.shape[position])
        if not isinstance(start, Base):
            first = self._static("dynamic_slice", axis, "start", start, last=self._array.shape[position] - width)
            return self.slice(axis, first, first + width)
        batch = self._batch("dynamic_slice", axis, start)
        values, places = self._values(), _places("dynamic_slice", start)

        def one(operand: jax.Array, at: jax.Array, order: tuple[str, ...]) -> jax.Array:
            return _dynamic_slice(operand, at, width, order.index(axis))

        return self._make(_batched(one, batch, start.axes, (self._axes, values), at=places), self._axes)

    def dynamic_update(self, axis: str, start: SupportsIndex | Tensor, update: Tensor) -> Tensor:
        """This tensor with `update` written along `axis` from `start` on; in place where its buffer is donated.

        `update` has this tensor's axes, and their sizes but along `axis`. `start` is an integer tensor whose axes, if
        any, are other axes of this tensor: each of their elements is written at a place of its own. It is clamped so
        that the whole of `update` fits, which for a full cache means that its last elements are overwritten.
        """
        position = self._position(axis, "dynamic_update")
        check_operand("dynamic_update", update, self)
        if set(update.axes) != set(self._axes):
            odd = next((n for n in update.axes if n not in self._axes), None)
            lacking = [n for n in self._axes if n not in update.axes]
            guess = closest(odd, lacking) if odd else None
            fail(
                "dynamic_update: what is written needs the axes of what it is written to",
                found={"tensor": self, "update": update},
                fix=f'.rename("{odd} -> {guess}")' if guess else f".broadcast({lacking[0]}=...)" if lacking else None,
            )
        for name in self._axes:
            if name != axis and update.size(name) != self.size(name):
                fail(
                    f"dynamic_update: axis {name!r} has size {self.size(name)} in the tensor and "
                    f"{update.size(name)} in the update; only {axis!r} may differ",
                    found={"tensor": self, "update": update},
                )
        same_dtype("dynamic_update", self, update, ("tensor", "update"))
        room = self._array.shape[position]
        width = self._width("dynamic_update", axis, update.size(axis), room, {"update": update})
        if not isinstance(start, Base):
            start = self._make(
                jnp.asarray(self._static("dynamic_update", axis, "start", start, last=room - width), jnp.int32), ()
            )
        batch = self._batch("dynamic_update", axis, start)
        values, new, places = self._values(), update._transposed(self._axes), _places("dynamic_update", start)

        def one(operand: jax.Array, piece: jax.Array, at: jax.Array, order: tuple[str, ...]) -> jax.Array:
            starts = [at if name == axis else jnp.zeros((), at.dtype) for name in order]
            return lax.dynamic_update_slice(operand, piece, starts, allow_negative_indices=False)

        arrays = ((self._axes, values), (self._axes, new))
        return self._make(_batched(one, batch, start.axes, *arrays, at=places), self._axes)

    def gather(self, axis: str, places: Tensor) -> Tensor:
        """The elements at many places along `axis`: an embedding's rows, the logits of chosen tokens.

        The result has this tensor's axes without `axis`, and those of `places`. Axes that both have are batch axes:
        each of their elements looks up in its own part. `places` may have an axis called `axis`, which then replaces
        it: `x.gather("s", x.argsort("s"))` sorts. A place outside the axis is clamped to the nearest one inside.

        Lowers to a single `stablehlo.gather`.
        """
        position = self._position(axis, "gather")
        values, batch = self._values(), self._lookup("gather", axis, position, places)
        ids = _places("gather", places)
        window = [i for i, name in enumerate(self._axes) if name != axis and name not in batch]
        numbers = lax.GatherDimensionNumbers(
            offset_dims=tuple(range(ids.ndim, ids.ndim + len(window))),
            collapsed_slice_dims=(position,),
            start_index_map=(position,),
            operand_batching_dims=tuple(self._axes.index(name) for name in batch),
            start_indices_batching_dims=tuple(places.axes.index(name) for name in batch),
        )
        sizes = [size if i in window else 1 for i, size in enumerate(values.shape)]
        picked = lax.gather(values, ids[..., None], numbers, sizes, mode=lax.GatherScatterMode.CLIP)
        return self._make(picked, (*places.axes, *(self._axes[i] for i in window)))

    def scatter(self, axis: str, places: Tensor, update: Tensor | Scalar, mode: Mode = "set") -> Tensor:
        """This tensor with `update` written, or combined by `mode`, at many places along `axis`.

        The converse of `gather`: `update` has the axes that `x.gather(axis, places)` would have, or fewer, and is
        repeated along those that it lacks. What lies outside the axis is left out. Where a place occurs twice, "add",
        "mul", "max" and "min" combine all of its updates; with "set" one of them wins, and which one is not defined.

        In place where this tensor's buffer is donated.
        """
        position = self._position(axis, "scatter")
        if mode not in _SCATTER:
            fail(f"scatter: {mode!r} is not a mode", found={"tensor": self}, fix=f"one of {', '.join(_SCATTER)}")
        if mode != "set" and kind(self.dtype) == "bool":
            fail(
                f'scatter: "{mode}" needs numbers, not truth values',
                found={"tensor": self},
                fix='cast first: x.cast("int32")',
                kind=DTypeError,
            )
        values, batch = self._values(), self._lookup("scatter", axis, position, places)
        ids = _places("scatter", places)
        window = [i for i, name in enumerate(self._axes) if name != axis and name not in batch]
        order = (*places.axes, *(self._axes[i] for i in window))
        shape = (*ids.shape, *(values.shape[i] for i in window))
        if is_scalar(update):
            new = literal("scatter", update, self)
        else:
            check_operand("scatter", update, self)
            assert isinstance(update, Base)
            self._fits("scatter", update, dict(zip(order, shape, strict=True)), places)
            same_dtype("scatter", self, update, ("tensor", "update"))
            new = aligned(update, order)
        numbers = lax.ScatterDimensionNumbers(
            update_window_dims=tuple(range(ids.ndim, ids.ndim + len(window))),
            inserted_window_dims=(position,),
            scatter_dims_to_operand_dims=(position,),
            operand_batching_dims=tuple(self._axes.index(name) for name in batch),
            scatter_indices_batching_dims=tuple(places.axes.index(name) for name in batch),
        )
        updates = jnp.broadcast_to(new, shape)
        drop = lax.GatherScatterMode.FILL_OR_DROP
        return self._make(_SCATTER[mode](values, ids[..., None], updates, numbers, mode=drop), self._axes)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _static(self, op: str, axis: str, what: str, place: Any, *, last: int, asked: str | None = None) -> int:
        """A place known while tracing, counted from the front. Raises where it does not lie in 0...`last`."""
        at = _whole(place)
        asked = asked or f'x.{op}("{axis}", {place})'
        if at is None:
            fail(
                f"{op}: {what} must be a whole number or an integer tensor",
                found={"tensor": self, what: place},
                fix="name an array's axes first: nt.wrap(...)" if hasattr(place, "shape") else None,
            )
        counted = at + self.size(axis) if at < 0 else at
        if not 0 <= counted <= last:
            room = f"{axis!r} allows 0 to {last}" if last >= 0 else f"{axis!r} has no room for it"
            fail(f"{op}: {what} {at} is out of range, {room}", asked=asked, found={"tensor": self})
        return counted

    def _width(self, op: str, axis: str, size: Any, room: int, more: dict[str, Any] | None = None) -> int:
        width = _whole(size)
        if width is None or not 0 <= width <= room:
            fail(
                f"{op}: {size!r} elements do not fit into {axis!r}, which has {room}"
                if width is not None
                else f"{op}: the size must be a whole number known while tracing",
                found={"tensor": self, **(more or {})} if width is not None else {"tensor": self, "size": size},
            )
        return width

    def _nonempty(self, axis: str, position: int, op: str) -> None:
        if self._array.shape[position] == 0:
            fail(f"{op}: axis {axis!r} is empty, so no place in it exists", found={"tensor": self})

    def _batch(self, op: str, axis: str, start: Base) -> tuple[str, ...]:
        """The axes of `start`, along each of which every element has a place of its own."""
        for name in start.axes:
            if name == axis or name not in self._axes:
                fail(
                    f"{op}: the start has axis {name!r}, which is "
                    + ("the one that is sliced" if name == axis else "not an axis of the tensor"),
                    found={"tensor": self, "start": start},
                    fix=f'one start for each element of other axes of the tensor; for many places along "{axis}" '
                    "use gather or scatter",
                )
        same_sizes(op, {"tensor": self, "start": start})
        return start.axes

    def _lookup(self, op: str, axis: str, position: int, places: Tensor) -> tuple[str, ...]:
        """Batch axes of a gather or scatter, in this tensor's order."""
        check_operand(op, places, self)
        if kind(places.dtype) != "integer":
            fail(
                f"{op}: places are integers, not {places.dtype}",
                found={"tensor": self, "places": places},
                fix="for a choice by truth values: nt.where"
                if kind(places.dtype) == "bool"
                else 'cast them: .cast("int32")',
                kind=DTypeError,
            )
        if op == "gather" and places.count:
            self._nonempty(axis, position, op)
        batch = tuple(name for name in self._axes if name in places.axes and name != axis)
        for name in batch:
            if self.size(name) != places.size(name):
                fail(
                    f"{op}: axis {name!r} has size {self.size(name)} in the tensor and {places.size(name)} in the "
                    "places; a name that both have is a batch axis",
                    asked=f'x.{op}("{axis}", places)',
                    found={"tensor": self, "places": places},
                    fix=f"rename one of them, if {name!r} means two things here",
                )
        return batch

    def _fits(self, op: str, update: Base, expected: dict[str, int], places: Base) -> None:
        extra = [name for name in update.axes if name not in expected]
        if extra:
            lacking = [name for name in expected if name not in update.axes]
            guess = closest(extra[0], lacking)
            fail(
                f"{op}: the update has axis {extra[0]!r}; it may have ({', '.join(expected)})",
                found={"tensor": self, "places": places, "update": update},
                fix=f'.rename("{extra[0]} -> {guess}")' if guess else None,
            )
        for name, size in update.sizes.items():
            if expected[name] != size:
                fail(
                    f"{op}: axis {name!r} has size {size} in the update, {expected[name]} is needed",
                    found={"tensor": self, "places": places, "update": update},
                )


def _whole(value: Any) -> int | None:
    """A Python or numpy integer; not a truth value, which counts as one only by accident."""
    if isinstance(value, (bool, Base)) or (hasattr(value, "ndim") and value.ndim):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _places(op: str, places: Base) -> jax.Array:
    if kind(places.dtype) != "integer":
        fail(
            f"{op}: a place is an integer, not {places.dtype}",
            found={"place": places},
            fix='cast it: .cast("int32")',
            kind=DTypeError,
        )
    values = places._values()
    # XLA clamps a start in the start's own type, so one of 8 bits could not reach most of an axis.
    return values if values.dtype.itemsize >= 4 else values.astype(jnp.int32)


def _dynamic_slice(values: jax.Array, start: jax.Array, size: int, position: int) -> jax.Array:
    starts = [start if i == position else jnp.zeros((), start.dtype) for i in range(values.ndim)]
    sizes = [size if i == position else n for i, n in enumerate(values.shape)]
    return lax.dynamic_slice(values, starts, sizes, allow_negative_indices=False)


def _batched(
    fn: Callable[..., jax.Array],
    batch: tuple[str, ...],
    at_axes: tuple[str, ...],
    *operands: tuple[tuple[str, ...], jax.Array],
    at: jax.Array,
) -> jax.Array:
    """`fn(*arrays, at, order)` for every element along the axes in `batch`; `order` names what is left of the arrays.

    The result is stored as the first operand is.
    """
    order = operands[0][0]
    if not batch:
        return fn(*(array for _, array in operands), at, order=order)
    name, *rest = batch
    position = order.index(name)
    inner = tuple(n for n in order if n != name)

    def without(*arrays: jax.Array) -> jax.Array:
        *values, places = arrays
        pairs = [(inner, value) for value in values]
        return _batched(fn, tuple(rest), tuple(n for n in at_axes if n != name), *pairs, at=places)

    axes = (*(position for _ in operands), at_axes.index(name))
    return jax.vmap(without, in_axes=axes, out_axes=position)(*(array for _, array in operands), at)
