"""`dot` is einsum by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit


def dot(name: str, left: str, right: str, axes: str, out: str, fill: str = "normal") -> Case:
    letters = {n: chr(ord("a") + i) for i, n in enumerate(dict.fromkeys((left + " " + right).split()))}

    def spell(spec: str) -> str:
        return "".join(letters[n] for n in spec.split())

    def expect(x: Any, y: Any) -> Any:
        return np.einsum(f"{spell(left)},{spell(right)}->{spell(out)}", x, y)

    return Case(name, (Operand(left, fill), Operand(right, fill)), lambda x, y: x.dot(y, axes), expect, out)


CASES = [
    dot("matrix-vector", "b d", "d", "d", "b"),
    dot("matrices", "b d", "d k", "d", "b k"),
    dot("batched", "b s d", "b k d", "d", "b s k"),
    dot("two-contracted", "b s d", "s d k", "s d", "b k"),
    dot("two-batch-axes", "b s d", "s b d", "d", "b s"),
    dot("everything", "b d", "d b", "b d", ""),
    dot("batch-contracted-and-free", "b s d k", "k b e d", "d k", "b s e"),
    dot("only-batch", "b d", "b d", "", "b d"),
    dot("outer", "b", "d", "", "b d"),
    dot("scalar", "", "b d", "", "b d"),
    dot("nothing-to-sum", "b none", "none k", "none", "b k"),
    dot("empty-result", "none d", "d k", "d", "none k"),
    dot("integers", "b s d", "b k d", "d", "b s k", fill="integer"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=12)
def test_matches_einsum_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    left, right = data.draw(any_order(case))
    case.check(case.run(left, right))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_accumulated_in_f32(dtype: str) -> None:
    # 4096 ones: a half-precision running sum would stop at 2048 or, for bfloat16, at 256.
    x = nt.ones("k", dtype, k=4096)
    assert x.dot(x, "k").dtype == x.dtype
    assert x.dot(x, "k", dtype="float32").item() == 4096
    assert x.dot(x, "k").item() == 4096


def test_small_integers_are_accumulated_in_int32() -> None:
    x = nt.full("k", 100, "int8", k=50)
    wide = x.dot(x, "k", dtype="int32")
    assert wide.dtype == jnp.int32
    assert wide.item() == 500_000


def test_f32_products_are_not_rounded_on_accelerators() -> None:
    x = nt.ones("b d", b=2, d=3)
    text = jax.jit(lambda x: x.dot(x, "d")).lower(x).as_text()
    assert text.count("HIGHEST") == 2


def test_can_be_differentiated() -> None:
    x, w = nt.ones("b d", b=2, d=3), nt.ones("d k", d=3, k=4)
    slope = jax.grad(lambda w: x.dot(w, "d").sum("b k").array)(w)
    assert slope.axes == ("d", "k")
    np.testing.assert_array_equal(slope.numpy("d k"), np.full((3, 4), 2.0))
