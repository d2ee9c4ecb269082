"""`Tensor`: an array whose axes have names, and the ways to make one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor import _axes
from namedtensor._conv import Windows
from namedtensor._dot import Contraction
from namedtensor._dtypes import element_type
from namedtensor._elementwise import Elementwise, literal_of
from namedtensor._errors import DTypeError, fail
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


def wrap(array: Any, axes: str, /, **sizes: int) -> Tensor:
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
    if isinstance(array, (np.ndarray, np.generic, jax.Array)):
        array = _storable(array)
    shape = layout.resolve(tuple(array.shape), sizes, "wrap")
    if shape != tuple(array.shape):
        if isinstance(array, jax.ShapeDtypeStruct):
            array = jax.ShapeDtypeStruct(shape, array.dtype)
        else:
            array = array.reshape(shape)
    if isinstance(array, (np.ndarray, np.generic)):
        array = jnp.asarray(array)
    return Tensor._of(array, layout.axes)


def _storable(array: Any) -> Any:
    """A numpy or jax array whose elements are numbers that jax can hold as they are."""
    if array.dtype != jnp.bool_ and not jnp.issubdtype(array.dtype, jnp.number):
        fail(
            f"wrap: elements of type {array.dtype} are not numbers",
            fix="for a random key: nt.random.key(seed)" if "key<" in str(array.dtype) else None,
            kind=DTypeError,
        )
    if isinstance(array, jax.Array):
        return array
    # jax narrows 64-bit types unless told otherwise. Rounding is expected of floating types; other integers are not.
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow != array.dtype and array.size and jnp.issubdtype(narrow, jnp.integer):
        info = jnp.iinfo(narrow)
        if array.min() < info.min or array.max() > info.max:
            fail(
                f"wrap: the array holds {array.dtype} numbers that do not fit into {narrow}",
                found={"array": f"from {array.min()} to {array.max()}"},
                fix='jax.config.update("jax_enable_x64", True) before anything else turns 64-bit types on',
                kind=DTypeError,
            )
    return np.asarray(array, narrow)


def spec(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor without data, to trace and compile with: `spec("b s", "int32", b=1, s=8)`."""
    order = _axes.names(axes, "spec")
    return Tensor._of(jax.ShapeDtypeStruct(_sizes("spec", order, sizes), element_type("spec", dtype)), order)


def full(axes: str, value: float, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor filled with one value."""
    order = _axes.names(axes, "full")
    target = element_type("full", dtype)
    return Tensor._of(jnp.full(_sizes("full", order, sizes), literal_of("full", value, target, {})), order)


def zeros(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor of zeros."""
    order = _axes.names(axes, "zeros")
    return Tensor._of(jnp.zeros(_sizes("zeros", order, sizes), element_type("zeros", dtype)), order)


def ones(axes: str, dtype: Any = "float32", **sizes: int) -> Tensor:
    """A tensor of ones."""
    order = _axes.names(axes, "ones")
    return Tensor._of(jnp.ones(_sizes("ones", order, sizes), element_type("ones", dtype)), order)


def arange(axis: str, size: int, dtype: Any = "int32", *, start: float = 0, step: float = 1) -> Tensor:
    """`start`, `start + step`, ... along one axis of the given size."""
    (name,) = _one(axis, "arange")
    _sizes("arange", (name,), {name: size})
    target = element_type("arange", dtype)
    if target == jnp.bool_:
        fail("arange: there are only two truth values", fix="ask for an integer type", kind=DTypeError)
    first, by = (literal_of("arange", value, target, {}) for value in (start, step))
    for end in (start + step * (size - 1),) if size else ():
        literal_of("arange", end, target, {})
    values = jax.lax.iota(target, size)
    if step != 1:
        values = values * by
    return Tensor._of(values + first if start else values, (name,))


def one_hot(indices: Tensor, axis: str, size: int, dtype: Any = "float32") -> Tensor:
    """One where the new `axis` equals the index, zero elsewhere; all zero for an index out of range."""
    (name,) = _one(axis, "one_hot")
    if name in indices.axes:
        fail(f"one_hot: the indices already have an axis {name!r}", found={"indices": indices})
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        fail("one_hot: integer indices are needed", found={"indices": indices}, kind=DTypeError)
    target = element_type("one_hot", dtype)
    places = indices._values()
    if places.dtype.itemsize < 4:
        places = places.astype(jnp.int32)  # an axis may be longer than a small type can count
    hot = places[..., None] == jax.lax.iota(places.dtype, _axes.size("one_hot", name, size))
    return Tensor._of(hot.astype(target), (*indices.axes, name))


def _one(axis: str, what: str) -> tuple[str]:
    found = _axes.names(axis, what)
    if len(found) != 1:
        fail(f"{what}: one axis is needed, {axis!r} names {len(found)}")
    return (found[0],)


def _sizes(what: str, order: tuple[str, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    for name in order:
        if name not in sizes:
            fail(f"{what}: no size for axis {name!r}", asked=f'"{" ".join(order)}"', fix=f"give it: {name}=...")
        _axes.size(what, name, sizes[name])
    for name in sizes:
        if name not in order:
            fail(f"{what}: a size is given for {name!r}, which the axes do not name", asked=f'"{" ".join(order)}"')
    return tuple(int(sizes[name]) for name in order)
