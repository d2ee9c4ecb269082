"""Reductions and what runs along an axis are numpy's, over named axes."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit

FULL, INTEGER, TRUTH = Operand("b s d"), Operand("b s d", "integer"), Operand("b s d", "bool")


def case(name: str, run: Any, expect: Any, out: str | tuple[str, ...] = "b d", operand: Operand = FULL) -> Case:
    return Case(name, (operand,), run, expect, out)


def softmax(x: np.ndarray[Any, Any], axis: Any) -> np.ndarray[Any, Any]:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def largest(x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    order = np.argsort(-x, axis=1, kind="stable")[:, :2]
    return np.take_along_axis(x, order, 1), order


CASES = [
    case("sum", lambda x: x.sum("s"), lambda x: x.sum(1)),
    case("sum-two", lambda x: x.sum("d b"), lambda x: x.sum((0, 2)), "s"),
    case("sum-all", lambda x: x.sum("b s d"), lambda x: x.sum(), ""),
    case("sum-none", lambda x: x.sum(""), lambda x: x, "b s d"),
    case("sum-integer", lambda x: x.sum("s"), lambda x: x.sum(1), operand=INTEGER),
    case("sum-truth-counts", lambda x: x.sum("s"), lambda x: x.sum(1), operand=TRUTH),
    case("sum-empty", lambda x: x.sum("none"), lambda x: x.sum(1), "b", Operand("b none")),
    case("mean", lambda x: x.mean("s d"), lambda x: x.mean((1, 2)), "b"),
    case("var", lambda x: x.var("s"), lambda x: x.var(1)),
    case("std", lambda x: x.std("s"), lambda x: x.std(1)),
    case("prod", lambda x: x.prod("s"), lambda x: x.prod(1)),
    case("max", lambda x: x.max("s"), lambda x: x.max(1)),
    case("max-integer", lambda x: x.max("s b"), lambda x: x.max((0, 1)), "d", INTEGER),
    case("min", lambda x: x.min("s"), lambda x: x.min(1)),
    case("any", lambda x: x.any("s"), lambda x: x.any(1), operand=TRUTH),
    case("all", lambda x: x.all("s"), lambda x: x.all(1), operand=TRUTH),
    case("all-empty", lambda x: x.all("none"), lambda x: x.all(1), "b", Operand("b none", "bool")),
    case("logsumexp", lambda x: x.logsumexp("s d"), lambda x: np.log(np.exp(x).sum((1, 2))), "b"),
    case("softmax", lambda x: x.softmax("s"), lambda x: softmax(x, 1), "b s d"),
    case("softmax-two", lambda x: x.softmax("s d"), lambda x: softmax(x, (1, 2)), "b s d"),
    case("softmax-large", lambda x: (x * 1000).softmax("s"), lambda x: softmax(x * 1000, 1), "b s d"),
    case("log-softmax", lambda x: x.log_softmax("s"), lambda x: np.log(softmax(x, 1)), "b s d"),
    case("argmax", lambda x: x.argmax("s"), lambda x: x.argmax(1)),
    case("argmax-first-of-equals", lambda x: x.argmax("s"), lambda x: x.argmax(1), operand=TRUTH),
    case("argmin", lambda x: x.argmin("s"), lambda x: x.argmin(1)),
    case("sort", lambda x: x.sort("s"), lambda x: np.sort(x, 1), "b s d"),
    case("sort-descending", lambda x: x.sort("s", descending=True), lambda x: -np.sort(-x, 1), "b s d"),
    case("argsort", lambda x: x.argsort("s"), lambda x: x.argsort(1, kind="stable"), "b s d", INTEGER),
    case(
        "argsort-descending",
        lambda x: x.argsort("s", descending=True),
        lambda x: (-x).argsort(1, kind="stable"),
        "b s d",
        INTEGER,
    ),
    case("top-k", lambda x: x.top_k("s", 2), largest, ("b s d", "b s d")),
    case("top-k-of-equals", lambda x: x.top_k("s", 2), largest, ("b s d", "b s d"), INTEGER),
    case("cumsum", lambda x: x.cumsum("s"), lambda x: x.cumsum(1), "b s d"),
    case("cumprod", lambda x: x.cumprod("s"), lambda x: x.cumprod(1), "b s d"),
    case("cummax", lambda x: x.cummax("s"), lambda x: np.maximum.accumulate(x, 1), "b s d"),
    case("flip", lambda x: x.flip("s b"), lambda x: x[::-1, ::-1], "b s d"),
    case("roll", lambda x: x.roll("s", 2), lambda x: np.roll(x, 2, 1), "b s d"),
    case("roll-back", lambda x: x.roll("s", -1), lambda x: np.roll(x, -1, 1), "b s d"),
    case("norm", lambda x: x.norm("s d"), lambda x: np.sqrt((x**2).sum((1, 2))), "b"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=6)
def test_matches_numpy_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    case = case.even()
    case.check(case.run(*data.draw(any_order(case))))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)


@pytest.mark.parametrize("op", ["sum", "mean", "var", "max", "softmax", "logsumexp", "cumsum", "norm"])
def test_keeps_a_half_type_and_computes_wider(op: str) -> None:
    x = nt.wrap(np.linspace(0.5, 1.5, 1000), "s").cast("bfloat16")
    result = getattr(x, op)("s")
    wide = getattr(x.cast("float32"), op)("s")
    assert result.dtype == jnp.bfloat16
    axes = " ".join(result.axes)
    np.testing.assert_allclose(result.cast("float32").numpy(axes), wide.numpy(axes), rtol=2**-7)


def test_nan_reaches_the_result() -> None:
    x = nt.wrap([1.0, float("nan"), 3.0], "s")
    assert np.isnan(x.max("s").item())
    assert np.isnan(x.min("s").item())
    assert x.argmax("s").item() == 1


def test_softmax_of_a_row_that_is_masked_out_is_finite() -> None:
    x = nt.zeros("s", s=4).mask(nt.full("s", False, "bool", s=4)).softmax("s")
    np.testing.assert_allclose(x.numpy("s"), 0.25)


@pytest.mark.parametrize("op", ["argmax", "argmin", "argsort"])
def test_places_are_int32(op: str) -> None:
    assert getattr(nt.ones("s", s=3), op)("s").dtype == jnp.int32
