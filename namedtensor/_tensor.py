"""`Tensor`: an array whose axes have names, and the ways to make one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor import _axes
from namedtensor._conv import Windows
from namedtensor._dot import Contraction
from namedtensor._elementwise import Elementwise
from namedtensor._errors import fail
from namedtensor._index import Indexing
from namedtensor._reduce import Reductions
from namedtensor._shape import Shape


@jax.tree_util.register_pytree_with_keys_class
class Tensor(Elementwise, Contraction, Reductions, Shape, Indexing, Windows):
    """An array with a name for every axis.

    Operations find axes by name, so the order in which they are stored has no meaning. It appears only at the edges:
    `wrap(array, "b s d")` on the way in, `data("b s d")` and `numpy("b s d")` on the way out.

    A tensor is a pytree with one leaf and works eagerly, under `jax.jit` and in the other transformations that keep
    the array's rank. The leaf may also be a shape (`jax.ShapeDtypeStruct`) or a weight that is not loaded yet.
    """

    __slots__ = ()

    def __init__(self, array: Any, axes: str) -> None:
        made = wrap(array, axes)
        self._array, self._axes = made._array, made._axes

    @classmethod
    def _of(cls, array: Any, axes: tuple[str, ...]) -> Tensor:
        """A tensor over `array` as it is: no check, which a pytree's unflatten must not make."""
        self = object.__new__(cls)
        self._array, self._axes = array, axes
        return self

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any]], tuple[str, ...]]:
        # The tensor's place in the tree names it well enough: `.layers[0].q`, with nothing after it.
        return ((_NO_KEY, self._array),), self._axes

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, ...]]:
        return (self._array,), self._axes

    @classmethod
    def tree_unflatten(cls, axes: tuple[str, ...], children: tuple[Any]) -> Tensor:
        return cls._of(children[0], axes)


class _NoKey:
    def __str__(self) -> str:
        return ""

    __repr__ = __str__


_NO_KEY = _NoKey()


def wrap(array: Any, axes: str, **sizes: int) -> Tensor:
    """Name the axes of an array: `wrap(array, "b s d")`.

    `array` is a jax or numpy array, a Python number or nested list. A group splits a stored axis,
    `wrap(array, "b (heads hd)", hd=64)`; `1` drops one of size one. Raises `AxisError` where the names do not fit.
    """
    layout = _axes.parse(axes)
    if isinstance(array, Tensor):
        fail("wrap: this already is a tensor with named axes", found={"tensor": array}, fix="x.rename(...)")
    if not hasattr(array, "shape"):
        try:
            array = np.asarray(array)
        except ValueError:
            array = np.empty(0, object)
        if array.dtype == object:
            fail("wrap: the nested lists are not an array of numbers: rows differ in length or hold something else")
    shape = layout.resolve(tuple(array.shape), sizes, "wrap")
    if shape != tuple(array.shape):
        if isinstance(array, jax.ShapeDtypeStruct):
            array = jax.ShapeDtypeStruct(shape, array.dtype)
        else:
            array = array.reshape(shape)
    if isinstance(array, (np.ndarray, np.generic)):
        array = jnp.asarray(array)
    return Tensor._of(array, layout.axes)


def spec(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor without data, to trace and compile with: `spec("b s", "int32", b=1, s=8)`."""
    order = _axes.names(axes, "spec")
    return Tensor._of(jax.ShapeDtypeStruct(_sizes("spec", order, sizes), jnp.dtype(dtype)), order)


def full(axes: str, value: float, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor filled with one value."""
    order = _axes.names(axes, "full")
    return Tensor._of(jnp.full(_sizes("full", order, sizes), value, jnp.dtype(dtype)), order)


def zeros(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor of zeros."""
    return full(axes, 0, dtype, **sizes)


def ones(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor of ones."""
    return full(axes, 1, dtype, **sizes)


def arange(axis: str, size: int, dtype: Any = "int32", *, start: int = 0, step: int = 1) -> Tensor:
    """`start`, `start + step`, ... along one axis of the given size."""
    (name,) = _one(axis, "arange")
    _sizes("arange", (name,), {name: size})
    dtype = jnp.dtype(dtype)
    values = jax.lax.iota(dtype, size)
    if step != 1:
        values = values * jnp.asarray(step, dtype)
    return Tensor._of(values + jnp.asarray(start, dtype) if start else values, (name,))


def one_hot(indices: Tensor, axis: str, size: int, dtype: Any = "float32") -> Tensor:
    """One where the new `axis` equals the index, zero elsewhere; all zero for an index out of range."""
    (name,) = _one(axis, "one_hot")
    if name in indices.axes:
        fail(f"one_hot: the indices already have an axis {name!r}", found={"indices": indices})
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        fail("one_hot: integer indices are needed", found={"indices": indices})
    hot = indices._values()[..., None] == jax.lax.iota(indices.dtype, size)
    return Tensor._of(hot.astype(jnp.dtype(dtype)), (*indices.axes, name))


def _one(axis: str, what: str) -> tuple[str]:
    found = _axes.names(axis, what)
    if len(found) != 1:
        fail(f"{what}: one axis is needed, {axis!r} names {len(found)}")
    return (found[0],)


def _sizes(what: str, order: tuple[str, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    for name in order:
        if name not in sizes:
            fail(f"{what}: no size for axis {name!r}", asked=f'"{" ".join(order)}"', fix=f"give it: {name}=...")
        size = sizes[name]
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
            fail(f"{what}: {name}={size!r} is not a size; a whole number from 0 is needed")
    for name in sizes:
        if name not in order:
            fail(f"{what}: a size is given for {name!r}, which the axes do not name", asked=f'"{" ".join(order)}"')
    return tuple(int(sizes[name]) for name in order)
