"""where, concat and stack, aligned by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import Case, Operand, any_order, check_under_jit

FULL, OTHER, TRUTH = Operand("b s d"), Operand("d b s"), Operand("s d", "bool")

CASES = [
    Case("where", (TRUTH, FULL, FULL), nt.where, np.where, "b s d"),
    Case(
        "where-narrow-values",
        (Operand("b s d", "bool"), Operand("s"), Operand("d")),
        nt.where,
        lambda c, x, y: np.where(c, x[:, None], y),
        "b s d",
    ),
    Case("where-number", (TRUTH, FULL), lambda c, x: nt.where(c, x, 0), lambda c, x: np.where(c, x, 0), "b s d"),
    Case("where-number-first", (TRUTH, FULL), lambda c, x: nt.where(c, 2, x), lambda c, x: np.where(c, 2, x), "b s d"),
    Case(
        "where-wide-condition",
        (Operand("s d", "bool"), Operand("")),
        lambda c, x: nt.where(c, x, 1),
        lambda c, x: np.where(c, x, 1),
        "s d",
    ),
    Case(
        "concat",
        (FULL, OTHER),
        lambda x, y: nt.concat([x, y], "s"),
        lambda x, y: np.concatenate([x, y.transpose(1, 2, 0)], 1),
        "b s d",
    ),
    Case(
        "concat-of-different-sizes",
        (FULL, Operand("b none d"), OTHER),
        lambda x, e, y: nt.concat([x, e.rename("none -> s"), y.slice("s", 0, 1)], "s"),
        lambda x, e, y: np.concatenate([x, y.transpose(1, 2, 0)[:, :1]], 1),
        "b s d",
    ),
    Case("concat-of-one", (FULL,), lambda x: nt.concat([x], "d"), lambda x: x, "b s d"),
    Case(
        "stack",
        (FULL, OTHER),
        lambda x, y: nt.stack([x, y], "n"),
        lambda x, y: np.stack([x, y.transpose(1, 2, 0)]),
        "n b s d",
    ),
    Case(
        "stack-undoes-unstack",
        (FULL,),
        lambda x: nt.stack(x.unstack("s"), "s"),
        lambda x: x,
        "b s d",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=8)
def test_matches_numpy_in_any_stored_order(case: Case, data: st.DataObject) -> None:
    case.check(case.run(*data.draw(any_order(case))))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_the_same_under_jit(case: Case) -> None:
    check_under_jit(case)
