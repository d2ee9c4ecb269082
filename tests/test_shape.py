"""What changes names and shapes changes no value, and finds every axis by name."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit

FULL = Operand("b h d")  # 2, 6, 4


def case(name: str, run: Any, expect: Any, out: str, operand: Operand = FULL) -> Case:
    return Case(name, (operand,), run, expect, out)


CASES = [
    case("rename", lambda x: x.rename("h -> heads"), lambda x: x, "b heads d"),
    case("rename-exchanges", lambda x: x.rename("h d -> d h"), lambda x: x, "b d h"),
    case("split", lambda x: x.split("h", "kv group", kv=2), lambda x: x.reshape(2, 2, 3, 4), "b kv group d"),
    case("split-by-last", lambda x: x.split("h", "kv group", group=2), lambda x: x.reshape(2, 3, 2, 4), "b kv group d"),
    case("split-in-three", lambda x: x.split("h", "e f g", e=1, f=3), lambda x: x.reshape(2, 1, 3, 2, 4), "b e f g d"),
    case("split-keeps-a-name", lambda x: x.split("h", "h g", g=3), lambda x: x.reshape(2, 2, 3, 4), "b h g d"),
    case("merge", lambda x: x.merge("h d -> hd"), lambda x: x.reshape(2, 24), "b hd"),
    case("merge-backwards", lambda x: x.merge("d h -> hd"), lambda x: x.swapaxes(1, 2).reshape(2, 24), "b hd"),
    case("merge-apart", lambda x: x.merge("b d -> n"), lambda x: x.swapaxes(0, 1).reshape(6, 8), "h n"),
    case("merge-onto-a-member", lambda x: x.merge("h d -> d"), lambda x: x.reshape(2, 24), "b d"),
    case("flatten", lambda x: x.flatten("d b h -> n"), lambda x: x.transpose(2, 0, 1).ravel(), "n"),
    case("transpose", lambda x: x.transpose("d b h"), lambda x: x, "b h d"),
    case("broadcast", lambda x: x.broadcast(e=3), lambda x: np.broadcast_to(x, (3, 2, 6, 4)), "e b h d"),
    case("broadcast-empty", lambda x: x.broadcast(e=0), lambda x: np.broadcast_to(x, (0, 2, 6, 4)), "e b h d"),
    case("squeeze", lambda x: x.squeeze("one"), lambda x: x[:, 0], "b d", Operand("b one d")),
    case("pad", lambda x: x.pad(d=(1, 2), b=(0, 1)), lambda x: np.pad(x, ((0, 1), (0, 0), (1, 2))), "b h d"),
    case(
        "pad-with-value",
        lambda x: x.pad(-1, h=(1, 0)),
        lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0)), constant_values=-1),
        "b h d",
    ),
    case("pad-crops", lambda x: x.pad(h=(-1, -2)), lambda x: x[:, 1:-2], "b h d"),
    case("unstack", lambda x: x.unstack("h")[2], lambda x: x[:, 2], "b d"),
    case("there-and-back", lambda x: x.split("h", "e g", e=2).merge("e g -> h"), lambda x: x, "b h d"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=6)
def test_matches_numpy_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    case.check(case.run(*data.draw(any_order(case))))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)


@given(order=st.permutations(["b", "h", "d"]), back=st.permutations(["b", "h", "d"]))
@settings(max_examples=12)
def test_order_exists_only_at_the_edges(order: list[str], back: list[str]) -> None:
    array = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    sizes = {"b": 2, "h": 3, "d": 4}
    x = nt.wrap(array.reshape(-1), "(b h d)", b=2, h=3).transpose(" ".join(order))
    assert x.axes == tuple(order)
    expected = array.transpose([["b", "h", "d"].index(name) for name in back])
    np.testing.assert_array_equal(x.numpy(" ".join(back)), expected)
    first, *rest = back
    merged = x.numpy(f"1 {first} ({' '.join(rest)})")
    assert merged.shape == (1, sizes[first], 24 // sizes[first])
    np.testing.assert_array_equal(merged.ravel(), expected.ravel())


def test_wrap_splits_and_drops_stored_axes() -> None:
    stored = np.arange(24).reshape(4, 1, 6)
    x = nt.wrap(stored, "(b s) 1 d", s=2)
    assert x.sizes == {"b": 2, "s": 2, "d": 6}
    np.testing.assert_array_equal(x.numpy("b s d"), stored.reshape(2, 2, 6))


def test_a_spec_has_names_and_sizes_and_no_data() -> None:
    x = nt.spec("b s", "int32", b=2, s=0)
    assert (x.axes, x.sizes, x.count, str(x.dtype)) == (("b", "s"), {"b": 2, "s": 0}, 0, "int32")
    assert x.rename("s -> keys").axes == ("b", "keys")
    out = jax.eval_shape(lambda x: x.sum("s"), x)
    assert (out.axes, out.sizes) == (("b",), {"b": 2})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "uint32", "bool"])
def test_filled_tensors_have_the_type_asked_for(dtype: str) -> None:
    for made in (nt.zeros("b s", dtype, b=2, s=3), nt.ones("b s", dtype, b=2, s=3)):
        assert made.dtype == np.dtype(made.array.dtype) == jax.numpy.dtype(dtype)
    assert nt.full("s", True, dtype, s=2).cast("bool").all("s").item()


def test_arange_counts_from_start_by_step() -> None:
    np.testing.assert_array_equal(nt.arange("s", 4).numpy("s"), [0, 1, 2, 3])
    np.testing.assert_array_equal(nt.arange("s", 3, start=5, step=-2).numpy("s"), [5, 3, 1])
    np.testing.assert_array_equal(nt.arange("s", 3, "float32", start=0.5, step=0.25).numpy("s"), [0.5, 0.75, 1])
    assert nt.arange("s", 0).sizes == {"s": 0}


def test_one_hot_is_zero_outside_and_counts_past_small_types() -> None:
    x = nt.wrap(np.array([1, -1, 3], "int8"), "b")
    np.testing.assert_array_equal(nt.one_hot(x, "k", 3).numpy("b k"), [[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert nt.one_hot(nt.wrap(np.array([0], "uint8"), "b"), "k", 300).sum("b k").item() == 1


def test_a_shape_that_vmap_changed_is_noticed() -> None:
    with pytest.raises(nt.AxisError, match="a transformation changed this tensor's array under its names"):
        jax.vmap(lambda x: x + 1)(nt.ones("b s", b=2, s=3))
