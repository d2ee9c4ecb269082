"""What every part of `Tensor` stands on: one array, and the names of its axes in stored order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor import _axes
from namedtensor._errors import AxisError, ModelError, describe, did_you_mean, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor

Scalar = int | float | bool


# What people who come from positional libraries reach for, and what does it here.
_ELSEWHERE = {
    "T": 'x.transpose("d s"), though no operation needs it',
    "at": "x.dynamic_update(...) or x.scatter(...)",
    "expand": "x.broadcast(b=4)",
    "expand_dims": "x.broadcast(b=1)",
    "matmul": 'x.dot(y, "k")',
    "ndim": "len(x.axes)",
    "permute": 'x.transpose("d s b")',
    "repeat": 'x.broadcast(times=4), then x.merge("s times -> s")',
    "reshape": 'x.split("heads", "kv group", kv=8) and x.merge("kv group -> heads")',
    "shape": 'x.sizes, or x.size("s") for one axis',
    "swapaxes": 'x.transpose("d s b")',
    "take": 'x.gather("s", places)',
    "unsqueeze": "x.broadcast(b=1)",
    "view": 'x.split("heads", "kv group", kv=8) and x.merge("kv group -> heads")',
}


class NoSuchAttribute(AxisError, AttributeError):
    """An `AttributeError` too, so that `hasattr` keeps its meaning."""


class Base:
    """One array and its axis names. `Tensor` adds the operations."""

    __slots__ = ("_array", "_axes")
    _array: Any
    _axes: tuple[str, ...]

    # Arrays of numpy and jax must leave `array * tensor` to us, which refuses it with a reason.
    __array_priority__ = 1000
    __array_ufunc__ = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes, in the order in which they happen to be stored."""
        return self._axes

    @property
    def array(self) -> Any:
        """The array as stored: a jax array or tracer, or a weight or shape that holds no data yet."""
        return self._array

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(self._array.dtype)

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each axis, by name."""
        self._check_rank()
        return dict(zip(self._axes, self._array.shape, strict=True))

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self._array.shape)

    def size(self, axis: str) -> int:
        """Size of one axis. Raises `AxisError` where the tensor has no such axis."""
        return int(self._array.shape[self._position(axis, "size")])

    def data(self, axes: str) -> jax.Array:
        """The values as a jax array with its axes in the order written; `(heads hd)` merges, `1` adds an axis."""
        layout = _axes.parse(axes)
        if set(layout.axes) != set(self._axes) or len(layout.axes) != len(self._axes):
            self._order_mismatch("data", axes, layout.axes)
        array = self._transposed(layout.axes)
        if any(len(group) != 1 for group in layout.groups):
            sizes = self.sizes
            array = jnp.reshape(array, [math.prod(sizes[n] for n in group) for group in layout.groups])
        return array

    def numpy(self, axes: str) -> np.ndarray[Any, Any]:
        """The values as a numpy array with its axes in the order written. Not while a model is traced."""
        self._known("numpy")
        return np.asarray(self.data(axes))

    def item(self) -> Any:
        """The one value of a tensor that has a single element, as a Python number."""
        if self.count != 1:
            fail(f"item: one element is needed, the tensor has {self.count}", found={"tensor": self})
        self._known("item")
        return np.asarray(self._values()).reshape(()).item()

    def __repr__(self) -> str:
        text = f"Tensor{describe(self)}"
        if isinstance(self._array, (np.ndarray, jax.Array)) and not isinstance(self._array, jax.core.Tracer):
            text += " " + np.array2string(np.asarray(self._array), threshold=20, precision=4, separator=", ")
        return text

    def __iter__(self) -> Any:
        fail(
            "a tensor has no first axis to iterate over",
            found={"tensor": self},
            fix='name it: [x.index("b", i) for i in range(x.size("b"))], or x.unstack("b")',
        )

    def __len__(self) -> int:
        fail("a tensor has no first axis to take the length of", found={"tensor": self}, fix='name it: x.size("b")')

    def __contains__(self, value: object) -> bool:
        fail(
            "'in' could mean an axis or a value of the tensor",
            found={"tensor": self},
            fix=f"an axis: {value!r} in x.axes" if isinstance(value, str) else "a value: (x == value).any(...)",
        )

    def __getitem__(self, place: Any) -> Any:
        fail(
            "a tensor is not indexed by position",
            asked=f"x[{place!r}]" if isinstance(place, (int, str, slice)) else None,
            found={"tensor": self},
            fix='name the axis: x.index("{0}", i), x.slice("{0}", start, stop), x.gather("{0}", places)'.format(
                self._axes[0] if self._axes else "s"
            ),
        )

    def __setitem__(self, place: Any, value: Any) -> Any:
        fail(
            "a tensor never changes in place",
            found={"tensor": self},
            fix="x.dynamic_update(...) and x.scatter(...) return the changed tensor",
        )

    def __matmul__(self, other: Any) -> Any:
        shared = [name for name in self._axes if name in getattr(other, "axes", ())]
        fail(
            "@ does not say which axes to contract",
            found={"left": self, "right": other},
            fix=f'name them: left.dot(right, "{shared[-1] if shared else "k"}")',
        )

    __rmatmul__ = __matmul__

    def __float__(self) -> float:
        fail("a tensor is not a Python number", found={"tensor": self}, fix="x.item(), outside of what is traced")

    def __int__(self) -> int:
        fail("a tensor is not a Python number", found={"tensor": self}, fix="x.item(), outside of what is traced")

    def __getattr__(self, name: str) -> Any:
        if name in _ELSEWHERE:
            fail(
                f"a tensor with named axes has no .{name}",
                found={"tensor": self},
                fix=_ELSEWHERE[name],
                kind=NoSuchAttribute,
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __array__(self, *_: Any, **__: Any) -> Any:
        fail(
            "a tensor turns into an array only with its order written out",
            found={"tensor": self},
            fix=f'x.numpy("{" ".join(self._axes)}")',
        )

    def __bool__(self) -> bool:
        if self.count != 1:
            fail(
                f"a tensor of {self.count} elements is neither true nor false",
                found={"tensor": self},
                fix=f'choose element by element with nt.where, or reduce it first: (...).all("{" ".join(self._axes)}")',
            )
        if isinstance(self._array, jax.core.Tracer):
            fail(
                "whether a tensor is true is not known while a model is traced",
                found={"tensor": self},
                fix="choose with nt.cond or nt.where",
            )
        return bool(self.item())

    # -- for the operations -------------------------------------------------------------------------------------

    def _make(self, array: Any, axes: Iterable[str]) -> Tensor:
        from namedtensor._tensor import Tensor

        return Tensor._of(array, tuple(axes))

    def _known(self, op: str) -> None:
        if isinstance(self._array, jax.core.Tracer):
            fail(
                f"{op}: the values of a tensor are not known while a model is traced",
                found={"tensor": self},
                fix="return the tensor, and look at it outside",
            )

    def _check_rank(self) -> None:
        shape = getattr(self._array, "shape", None)
        if shape is None or len(shape) != len(self._axes):
            fail(
                "a transformation changed this tensor's array under its names",
                found={"names": f"({', '.join(self._axes)})", "array": describe(self._array)},
                fix="jax.vmap, lax.scan and friends strip an axis that names still mention: use nt.scan, or pass "
                "x.data(...) in and nt.wrap(...) it inside",
            )

    def _values(self) -> jax.Array:
        """The array, fit to compute with. Raises where it holds no data."""
        self._check_rank()
        if not isinstance(self._array, (jax.Array, np.ndarray)):
            fail(
                f"this tensor is a {type(self._array).__name__}: it has a shape and no data yet",
                found={"tensor": self},
                fix="load it (nt.load(model).result()), or trace with it (nt.Program, jax.eval_shape)",
                kind=ModelError,
            )
        return jnp.asarray(self._array)

    def _position(self, axis: str, op: str) -> int:
        if axis not in self._axes:
            if isinstance(axis, str) and " " in axis.strip():
                fail(f"{op}: one axis is needed, {axis!r} names several", found={"tensor": self})
            fail(
                f"{op}: {axis!r} is not an axis of the tensor ({', '.join(self._axes)})",
                found={"tensor": self},
                fix=did_you_mean(str(axis), self._axes),
            )
        self._check_rank()
        return self._axes.index(axis)

    def _positions(self, axes: str | None, op: str) -> tuple[int, ...]:
        if axes is None:
            every = " ".join(self._axes)
            fail(f"{op}: say over which axes", found={"tensor": self}, fix=f'over all of them: x.{op}("{every}")')
        if isinstance(axes, int):
            fail(
                f"{op}: axes are named, not counted",
                asked=f"x.{op}({axes})",
                found={"tensor": self},
                fix=f'x.{op}("{self._axes[axes]}")' if -len(self._axes) <= axes < len(self._axes) else None,
            )
        return tuple(self._position(name, op) for name in _axes.names(axes, op))

    def _transposed(self, order: tuple[str, ...]) -> jax.Array:
        values = self._values()
        if order == self._axes:
            return values
        return jax.lax.transpose(values, [self._axes.index(name) for name in order])

    def _order_mismatch(self, op: str, spec: str, wanted: tuple[str, ...]) -> None:
        missing = [n for n in self._axes if n not in wanted]
        extra = [n for n in wanted if n not in self._axes]
        problem = " and ".join(
            [f"does not name {', '.join(map(repr, missing))}"] * bool(missing)
            + [f"names {', '.join(map(repr, extra))}, which the tensor does not have"] * bool(extra)
        )
        raise_fix = did_you_mean(extra[0], missing or self._axes) if extra else "write every axis once"
        fail(f"{op}: the order {problem}", asked=f'"{spec}"', found={"tensor": self}, fix=raise_fix)
