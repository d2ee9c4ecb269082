"""Every operation against numpy: operands with named axes, stored in an order that hypothesis picks.

An operation is a `Case`: its operands, what to run on tensors, what numpy makes of the same arrays with their axes in
the order written, and the axes of the result. Where sizes mean nothing to an operation, every axis gets the same one in
the eager tests: then no order is another shape, and nearly everything has been compiled before.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

import namedtensor as nt

SIZES = {"b": 2, "s": 3, "d": 4, "k": 5, "h": 6, "w": 7, "c": 4, "v": 8, "e": 3, "one": 1, "none": 0}
EVEN = {**dict.fromkeys(SIZES, 3), "one": 1, "none": 0}


@dataclass(frozen=True)
class Operand:
    """Axes with their sizes, and what to fill them with: normal, positive, unit, integer, bool or `below 5`."""

    axes: str
    fill: str = "normal"
    dtype: str = "float32"

    def values(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> np.ndarray[Any, Any]:
        shape = [sizes[name] for name in self.axes.split()]
        match self.fill.split():
            case ["normal"]:
                return rng.normal(size=shape).astype(self.dtype)
            case ["positive"]:
                return rng.uniform(0.5, 2, size=shape).astype(self.dtype)
            case ["unit"]:
                return rng.uniform(-0.9, 0.9, size=shape).astype(self.dtype)
            case ["integer"]:
                return rng.integers(-5, 6, size=shape).astype("int32")
            case ["bool"]:
                return rng.integers(0, 2, size=shape).astype(bool)
            case ["below", bound]:
                return rng.integers(0, int(bound), size=shape).astype("int32")
        raise ValueError(self.fill)


@dataclass(frozen=True)
class Case:
    """An operation: `run` on tensors gives what `expect` gives on arrays, its axes in the order of `out`."""

    name: str
    operands: tuple[Operand, ...]
    run: Callable[..., Any]
    expect: Callable[..., Any]
    out: str | tuple[str, ...]
    tolerance: float = 1e-5
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)

    def even(self) -> "Case":
        """The same operation on axes of one size."""
        return replace(self, sizes=EVEN)

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [operand.values(rng, self.sizes) for operand in self.operands]

    def tensors(self, orders: list[list[str]]) -> list[nt.Tensor]:
        pairs = zip(self.arrays(), self.operands, orders, strict=True)
        return [stored(array, operand.axes, order) for array, operand, order in pairs]

    def check(self, result: Any) -> None:
        """The result against numpy's: the same values by name, the same type."""
        expected = self.expect(*self.arrays())
        if isinstance(self.out, str):
            result, expected = [result], [expected]
        out = [self.out] if isinstance(self.out, str) else self.out
        for tensor, array, axes in zip(result, expected, out, strict=True):
            assert isinstance(tensor, nt.Tensor)
            assert set(tensor.axes) == set(axes.split())
            found, wanted = tensor.numpy(axes), np.asarray(array)
            assert found.shape == wanted.shape
            assert (found.dtype.kind == "b") == (wanted.dtype.kind == "b")
            np.testing.assert_allclose(found, wanted, rtol=self.tolerance, atol=self.tolerance)

    def __str__(self) -> str:
        return self.name


def stored(array: np.ndarray[Any, Any], axes: str, order: list[str]) -> nt.Tensor:
    """A tensor of the array, whose axes are named in `axes`, that is stored in `order`."""
    names = axes.split()
    return nt.wrap(array.transpose([names.index(name) for name in order]).copy(), " ".join(order))


@st.composite
def any_order(draw: st.DrawFn, case: Case) -> list[nt.Tensor]:
    """The case's operands, each stored in an order of its own."""
    return case.tensors([draw(st.permutations(operand.axes.split())) for operand in case.operands])


def one_order(case: Case) -> list[nt.Tensor]:
    """The case's operands in one order, the opposite of the one written."""
    return case.tensors([operand.axes.split()[::-1] for operand in case.operands])


def check_under_jit(case: Case) -> None:
    """Compiled, the operation gives the same."""
    case.check(jax.jit(case.run)(*one_order(case)))
