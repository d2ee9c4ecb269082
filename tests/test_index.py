"""Slices, gather and scatter by name."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit

FULL = Operand("b h d")  # 2, 6, 4
PLACE = Operand("", "below 6")
PER_BATCH = Operand("b", "below 6")
ROWS = np.arange(2)


def case(name: str, run: Any, expect: Any, out: str, *more: Operand, operand: Operand = FULL) -> Case:
    return Case(name, (operand, *more), run, expect, out)


def windows(x: np.ndarray[Any, Any], start: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    at = np.minimum(start, x.shape[1] - size)
    return np.stack([x[i, at[i] : at[i] + size] for i in ROWS])


def updated(x: np.ndarray[Any, Any], start: Any, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """x (b h d) with y (d e b) written along h."""
    y, result = y.transpose(2, 1, 0), x.copy()
    at = np.broadcast_to(np.minimum(start, x.shape[1] - y.shape[1]), 2)
    for i in ROWS:
        result[i, at[i] : at[i] + y.shape[1]] = y[i]
    return result


def scattered(
    x: np.ndarray[Any, Any], ids: np.ndarray[Any, Any], y: np.ndarray[Any, Any], ufunc: np.ufunc
) -> np.ndarray[Any, Any]:
    """x (b h d) with y (b k d) combined at ids (b k) along h."""
    result = x.copy()
    for i in ROWS:
        ufunc.at(result[i], ids[i], y[i])
    return result


IDS, UPDATE = Operand("b k", "below 6"), Operand("b k d")

CASES = [
    case("index", lambda x: x.index("h", 2), lambda x: x[:, 2], "b d"),
    case("index-from-the-end", lambda x: x.index("h", -1), lambda x: x[:, -1], "b d"),
    case("index-at-run-time", lambda x, i: x.index("h", i), lambda x, i: x[:, i], "b d", PLACE),
    case("slice", lambda x: x.slice("h", 1, 4), lambda x: x[:, 1:4], "b h d"),
    case("slice-to-the-end", lambda x: x.slice("h", 2), lambda x: x[:, 2:], "b h d"),
    case("slice-from-the-end", lambda x: x.slice("h", -3, -1), lambda x: x[:, -3:-1], "b h d"),
    case("slice-by-step", lambda x: x.slice("h", 1, 6, 2), lambda x: x[:, 1:6:2], "b h d"),
    case("slice-nothing", lambda x: x.slice("h", 3, 3), lambda x: x[:, 3:3], "b h d"),
    case(
        "dynamic-slice",
        lambda x, i: x.dynamic_slice("h", i, 3),
        lambda x, i: windows(x, np.full(2, i), 3),
        "b h d",
        PLACE,
    ),
    case("dynamic-slice-known-start", lambda x: x.dynamic_slice("h", 2, 3), lambda x: x[:, 2:5], "b h d"),
    case(
        "dynamic-slice-per-batch",
        lambda x, i: x.dynamic_slice("h", i, 3),
        lambda x, i: windows(x, i, 3),
        "b h d",
        PER_BATCH,
    ),
    case(
        "dynamic-slice-two-batch-axes",
        lambda x, i: x.dynamic_slice("h", i, 2),
        lambda x, i: np.stack(
            [np.stack([x[b, min(i[b, d], 4) : min(i[b, d], 4) + 2, d] for d in range(4)], -1) for b in ROWS]
        ),
        "b h d",
        Operand("b d", "below 6"),
    ),
    case(
        "dynamic-update",
        lambda x, i, y: x.dynamic_update("h", i, y.rename("e -> h")),
        updated,
        "b h d",
        PLACE,
        Operand("d e b"),
    ),
    case(
        "dynamic-update-per-batch",
        lambda x, i, y: x.dynamic_update("h", i, y.rename("e -> h")),
        updated,
        "b h d",
        PER_BATCH,
        Operand("d e b"),
    ),
    case(
        "dynamic-update-known-start",
        lambda x, y: x.dynamic_update("h", 1, y.rename("e -> h")),
        lambda x, y: updated(x, 1, y),
        "b h d",
        Operand("d e b"),
    ),
    case(
        "gather",
        lambda x, i: x.gather("v", i),
        lambda x, i: x[i],
        "b s d",
        Operand("b s", "below 8"),
        operand=Operand("v d"),
    ),
    case("gather-one", lambda x, i: x.gather("h", i), lambda x, i: x[:, i], "b d", PLACE),
    case(
        "gather-batched",
        lambda x, i: x.gather("h", i),
        lambda x, i: np.stack([x[b][i[:, b]] for b in ROWS]),
        "b k d",
        Operand("k b", "below 6"),
    ),
    case(
        "gather-two-batch-axes",
        lambda x, i: x.gather("h", i),
        lambda x, i: np.take_along_axis(x, i.transpose(1, 2, 0), 1),
        "b k d",
        Operand("d b k", "below 6"),
    ),
    case(
        "gather-onto-its-own-name",
        lambda x: x.gather("h", x.argsort("h")),
        lambda x: np.sort(x, 1),
        "b h d",
    ),
    case(
        "gather-from-one-axis",
        lambda x, i: x.gather("h", i),
        lambda x, i: x[i],
        "k",
        Operand("k", "below 6"),
        operand=Operand("h"),
    ),
    *(
        case(
            f"scatter-{mode}",
            lambda x, i, y, mode=mode: x.scatter("h", i, y, mode),
            lambda x, i, y, ufunc=ufunc: scattered(x, i, y, ufunc),
            "b h d",
            IDS,
            UPDATE,
        )
        for mode, ufunc in [("add", np.add), ("mul", np.multiply), ("max", np.maximum), ("min", np.minimum)]
    ),
    case(
        "scatter-set",
        lambda x, y: x.scatter("h", nt.wrap([4, 0, 5], "e"), y),
        lambda x, y: np.stack([y[1], x[:, 1], x[:, 2], x[:, 3], y[0], y[2]], 1),
        "b h d",
        Operand("e b d"),
    ),
    case(
        "scatter-a-number",
        lambda x, i: x.scatter("h", i, 1, "add"),
        lambda x, i: x + np.stack([np.bincount(row, minlength=6) for row in i])[:, :, None],
        "b h d",
        IDS,
    ),
    case(
        "scatter-repeats-what-the-update-lacks",
        lambda x, i, y: x.scatter("h", i, y, "add"),
        lambda x, i, y: scattered(x, i, np.broadcast_to(y, (2, 5, 4)), np.add),
        "b h d",
        IDS,
        Operand("d"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=6)
def test_matches_numpy_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    case.check(case.run(*data.draw(any_order(case))))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)


X = nt.wrap(np.arange(6.0, dtype=np.float32), "s")


def test_reads_at_run_time_are_clamped() -> None:
    places = nt.wrap([-1, 2, 99], "k")
    np.testing.assert_array_equal(X.gather("s", places).numpy("k"), [0, 2, 5])
    assert X.index("s", nt.wrap(-1, "")).item() == 0
    assert X.index("s", nt.wrap(99, "")).item() == 5
    np.testing.assert_array_equal(X.dynamic_slice("s", nt.wrap(5, ""), 3).numpy("s"), [3, 4, 5])
    np.testing.assert_array_equal(X.dynamic_slice("s", nt.wrap(-2, ""), 3).numpy("s"), [0, 1, 2])


def test_an_update_at_run_time_is_clamped_so_that_it_fits() -> None:
    found = X.dynamic_update("s", nt.wrap(5, ""), nt.full("s", -1.0, s=2))
    np.testing.assert_array_equal(found.numpy("s"), [0, 1, 2, 3, -1, -1])


def test_a_scatter_leaves_out_what_lies_outside() -> None:
    found = X.scatter("s", nt.wrap([-1, 6, 2], "k"), 10.0, "add")
    np.testing.assert_array_equal(found.numpy("s"), [0, 1, 12, 3, 4, 5])


def test_a_small_type_reaches_the_whole_axis() -> None:
    x = nt.arange("s", 300)
    place = nt.wrap(np.uint8(200), "")
    assert x.index("s", place).item() == 200
    assert x.gather("s", place).item() == 200
    assert x.dynamic_slice("s", place, 1).sum("s").item() == 200


def test_an_embedding_is_one_gather() -> None:
    table, ids = nt.ones("vocab d", vocab=8, d=4), nt.zeros("b s", "int32", b=2, s=3)
    text = jax.jit(lambda table, ids: table.gather("vocab", ids)).lower(table, ids).as_text()
    assert text.count('"stablehlo.gather"') == 1
    assert not any(op in text for op in ("stablehlo.clamp", "stablehlo.select", "stablehlo.transpose"))


def test_a_donated_cache_is_written_in_place() -> None:
    cache, new = nt.zeros("b keys d", b=2, keys=8, d=4), nt.ones("b keys d", b=2, keys=1, d=4)

    def step(cache: nt.Tensor, at: nt.Tensor, new: nt.Tensor) -> nt.Tensor:
        return cache.dynamic_update("keys", at, new)

    compiled = jax.jit(step, donate_argnums=0).lower(cache, nt.wrap(3, ""), new).compile()
    text = str(compiled.as_text())
    assert "input_output_alias={ {}: (0, {}, may-alias) }" in text
    assert " copy(" not in text


def test_gather_and_scatter_can_be_differentiated() -> None:
    ids = nt.wrap([0, 2, 2], "k")
    slope = jax.grad(lambda x: x.gather("s", ids).sum("k").array)(X)
    np.testing.assert_array_equal(slope.numpy("s"), [1, 0, 2, 0, 0, 0])
    slope = jax.grad(lambda y: (X.scatter("s", ids, y, "add") * X).sum("s").array)(nt.zeros("k", k=3))
    np.testing.assert_array_equal(slope.numpy("k"), [0, 2, 2])


def test_numpy_integers_are_places_too() -> None:
    assert X.index("s", np.int64(3)).item() == 3
    assert X.slice("s", np.int32(1), np.uint8(3)).sizes == {"s": 2}
