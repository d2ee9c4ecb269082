"""Elementwise operations are numpy's, aligned by name."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit

FULL, PART = Operand("b s d"), Operand("d s")
POSITIVE, UNIT = Operand("b s d", "positive"), Operand("b s d", "unit")
INTEGER, TRUTH = Operand("b s d", "integer"), Operand("b s d", "bool")
DIVISOR = Operand("d s", "below 4")


def unary(name: str, run: Any, expect: Any, operand: Operand = FULL) -> Case:
    return Case(name, (operand,), run, expect, "b s d")


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.vectorize(math.erf)(x).astype(np.float32)


UNARY = [
    unary("negative", lambda x: -x, np.negative),
    unary("abs", abs, np.abs),
    unary("abs-method", lambda x: x.abs(), np.abs, INTEGER),
    unary("sign", lambda x: x.sign(), np.sign, INTEGER),
    unary("square", lambda x: x.square(), np.square),
    unary("exp", lambda x: x.exp(), np.exp),
    unary("expm1", lambda x: x.expm1(), np.expm1),
    unary("log", lambda x: x.log(), np.log, POSITIVE),
    unary("log1p", lambda x: x.log1p(), np.log1p, UNIT),
    unary("sqrt", lambda x: x.sqrt(), np.sqrt, POSITIVE),
    unary("rsqrt", lambda x: x.rsqrt(), lambda x: 1 / np.sqrt(x), POSITIVE),
    unary("reciprocal", lambda x: x.reciprocal(), np.reciprocal, POSITIVE),
    unary("sin", lambda x: x.sin(), np.sin),
    unary("cos", lambda x: x.cos(), np.cos),
    unary("tanh", lambda x: x.tanh(), np.tanh),
    unary("sigmoid", lambda x: x.sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    unary("erf", lambda x: x.erf(), erf),
    unary("floor", lambda x: (x * 3).floor(), lambda x: np.floor(x * 3)),
    unary("ceil", lambda x: (x * 3).ceil(), lambda x: np.ceil(x * 3)),
    unary("round", lambda x: (x * 4).round(), lambda x: np.round(x * 4)),
    unary("isnan", lambda x: x.log().isnan(), lambda x: x < 0),
    unary("isfinite", lambda x: x.log().isfinite(), lambda x: x > 0),
    unary("invert", lambda x: ~x, np.invert, TRUTH),
    unary("power", lambda x: x**3, lambda x: x**3),
    unary("power-integer", lambda x: x**2, lambda x: x**2, INTEGER),
    unary("power-negative", lambda x: x**-2, lambda x: x**-2.0, POSITIVE),
    unary("power-fraction", lambda x: x**0.5, lambda x: x**0.5, POSITIVE),
    unary("scalar-left", lambda x: 2 - x, lambda x: 2 - x),
    unary("scalar-divided", lambda x: 1 / x, lambda x: 1 / x, POSITIVE),
    unary("scalar-power", lambda x: 2.0**x, lambda x: 2.0**x),
    unary("scalar-mod", lambda x: 7 % (x.abs() + 1), lambda x: 7 % (np.abs(x) + 1), INTEGER),
    unary("scalar-floordiv", lambda x: 7 // (x.abs() + 1), lambda x: 7 // (np.abs(x) + 1), INTEGER),
    unary("scalar-compare", lambda x: x >= 0, lambda x: x >= 0),
    unary("clip", lambda x: x.clip(-0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5)),
    unary("cast-integer", lambda x: (x * 3).cast("int32"), lambda x: (x * 3).astype("int32")),
    unary("cast-bool", lambda x: x.cast("bool"), lambda x: x.astype(bool), INTEGER),
    unary("shift-left", lambda x: x << 2, lambda x: x << 2, INTEGER),
    unary("shift-right", lambda x: x >> 1, lambda x: x >> 1, INTEGER),
]


def binary(name: str, run: Any, expect: Any, left: Operand = FULL, right: Operand = PART) -> Case:
    order = right.axes.split()

    def reference(x: Any, y: Any) -> Any:
        return expect(x, np.transpose(y, [order.index(n) for n in left.axes.split() if n in order]))

    return Case(name, (left, right), run, reference, "b s d")


BINARY = [
    binary("add", lambda x, y: x + y, np.add),
    binary("add-narrow-first", lambda x, y: y + x, np.add),
    binary("subtract", lambda x, y: x - y, np.subtract),
    binary("subtract-narrow-first", lambda x, y: y - x, lambda x, y: y - x),
    binary("multiply", lambda x, y: x * y, np.multiply),
    binary("divide", lambda x, y: x / y, np.divide, right=Operand("d s", "positive")),
    binary("floordiv", lambda x, y: x // (y + 1), lambda x, y: x // (y + 1), INTEGER, DIVISOR),
    binary("remainder", lambda x, y: x % (y + 1), lambda x, y: x % (y + 1), INTEGER, DIVISOR),
    binary("power", lambda x, y: x**y, np.power, POSITIVE),
    binary("maximum", lambda x, y: x.maximum(y), np.maximum),
    binary("minimum", lambda x, y: x.minimum(y), np.minimum),
    binary("less", lambda x, y: x < y, np.less),
    binary("less-equal", lambda x, y: x <= y, np.less_equal, INTEGER, DIVISOR),
    binary("greater", lambda x, y: x > y, np.greater),
    binary("greater-equal", lambda x, y: x >= y, np.greater_equal, INTEGER, DIVISOR),
    binary("equal", lambda x, y: x == y, np.equal, INTEGER, DIVISOR),
    binary("not-equal", lambda x, y: x != y, np.not_equal, INTEGER, DIVISOR),
    binary("and", lambda x, y: x & y, np.bitwise_and, TRUTH, Operand("d s", "bool")),
    binary("or", lambda x, y: x | y, np.bitwise_or, INTEGER, DIVISOR),
    binary("xor", lambda x, y: x ^ y, np.bitwise_xor, TRUTH, Operand("d s", "bool")),
    binary("mask", lambda x, y: x.mask(y, -1), lambda x, y: np.where(y, x, -1), right=Operand("d s", "bool")),
    binary(
        "mask-lowest",
        lambda x, y: x.mask(y),
        lambda x, y: np.where(y, x, np.finfo("float32").min),
        right=Operand("d s", "bool"),
    ),
    binary("same-axes", lambda x, y: x + y, lambda x, y: x + y, right=Operand("s d b")),
    binary("scalar-tensor", lambda x, y: x + y, np.add, right=Operand("")),
    Case(
        "size-one-is-squeezed-first",
        (FULL, Operand("one s")),
        lambda x, y: x * y.squeeze("one"),
        lambda x, y: x * y[0][None, :, None],
        "b s d",
    ),
]


@pytest.mark.parametrize("case", UNARY + BINARY, ids=str)
@given(data=st.data())
@settings(max_examples=6)
def test_matches_numpy_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    case = case.even()
    case.check(case.run(*data.draw(any_order(case))))


@pytest.mark.parametrize("case", UNARY + BINARY, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "int8", "uint8"])
def test_a_python_number_takes_the_tensors_type(dtype: str) -> None:
    x = nt.ones("s", dtype, s=3)
    assert (x + 1).dtype == (2 * x).dtype == (x - True).dtype == x.dtype


def test_nan_reaches_the_result_of_maximum() -> None:
    x = nt.wrap([1.0, float("nan")], "s")
    assert np.isnan(x.maximum(2.0).numpy("s")).tolist() == [False, True]


def test_comparison_makes_tensors_unequal_to_nothing_but_hashable() -> None:
    x = nt.ones("s", s=3)
    assert {x: "found"}[x] == "found"
