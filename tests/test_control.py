"""Loops and branches: what they compute, what they carry, and what they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import stored

XS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)  # b t d


class State(nt.Module):
    total: nt.Tensor
    steps: nt.Tensor
    label: str = "state"


def running(x: nt.Tensor) -> tuple[nt.Tensor, nt.Tensor]:
    return nt.scan(lambda c, x: (c + x, c * 2), nt.zeros("d b", d=4, b=2), x, axis="t")


@given(order=st.permutations(["b", "t", "d"]))
@settings(max_examples=6)
def test_scan_goes_along_a_named_axis_in_any_stored_order(order: list[str]) -> None:
    last, outputs = running(stored(XS, "b t d", order))
    np.testing.assert_allclose(last.numpy("b d"), XS.sum(1), rtol=1e-5)
    before = np.cumsum(XS, 1) - XS
    np.testing.assert_allclose(outputs.numpy("b t d"), before * 2, rtol=1e-5, atol=1e-5)


def test_scan_is_the_same_under_jit() -> None:
    x = nt.wrap(XS, "b t d")
    for eager, compiled in zip(running(x), jax.jit(running)(x), strict=True):
        np.testing.assert_allclose(eager.numpy(" ".join(eager.axes)), compiled.numpy(" ".join(eager.axes)), rtol=1e-6)


def test_scan_backwards_sees_the_last_element_first() -> None:
    x = nt.arange("t", 4)
    last, seen = nt.scan(lambda c, x: (x, c), nt.wrap(-1, ""), x, axis="t", reverse=True)
    assert last.item() == 0
    assert seen.numpy("t").tolist() == [1, 2, 3, -1]


def test_scan_carries_modules_dicts_and_takes_a_length_instead_of_inputs() -> None:
    def step(state: State, _: None) -> tuple[State, dict[str, nt.Tensor]]:
        state = state.replace(total=state.total * 2, steps=state.steps + 1)
        return state, {"seen": state.steps}

    start = State(nt.ones("d", d=2), nt.wrap(0, ""))
    last, outputs = nt.scan(step, start, axis="t", length=5)
    assert (last.label, last.steps.item(), last.total.numpy("d").tolist()) == ("state", 5, [32.0, 32.0])
    assert outputs["seen"].numpy("t").tolist() == [1, 2, 3, 4, 5]


def test_scan_over_stacked_layers_feeds_each_its_own_weights() -> None:
    class Layer(nt.Module):
        weight: nt.Tensor

        def __call__(self, x: nt.Tensor) -> nt.Tensor:
            return x.dot(self.weight, "d").rename("k -> d")

    layers = Layer(nt.wrap(np.random.default_rng(1).normal(size=(3, 4, 4)).astype("float32"), "layer d k"))
    x = nt.ones("d", d=4)
    found, _ = nt.scan(lambda x, layer: (layer(x), None), x, layers, axis="layer")
    expected = np.ones(4, np.float32)
    for weight in layers.weight.numpy("layer d k"):
        expected = expected @ weight
    np.testing.assert_allclose(found.numpy("d"), expected, rtol=1e-5)


def test_a_carry_may_come_back_in_another_order() -> None:
    start = nt.wrap(XS[0], "t d")
    last, _ = nt.scan(lambda c, _: (c.transpose("d t") + 1, None), start, axis="step", length=3)
    assert last.axes == ("t", "d")
    np.testing.assert_allclose(last.numpy("t d"), XS[0] + 3, rtol=1e-6)


def test_scan_of_no_steps_returns_what_it_was_given() -> None:
    last, outputs = nt.scan(lambda c, x: (c + x, c), nt.ones("b", b=2), nt.ones("t b", t=0, b=2), axis="t")
    assert last.numpy("b").tolist() == [1, 1]
    assert outputs.sizes == {"t": 0, "b": 2}


def test_scan_can_be_differentiated() -> None:
    slope = jax.grad(lambda x: running(x)[0].sum("b d").array)(nt.wrap(XS, "b t d"))
    np.testing.assert_array_equal(slope.numpy("b t d"), np.ones_like(XS))


def test_while_loop_runs_as_long_as_its_condition_holds() -> None:
    def collatz(n: nt.Tensor) -> tuple[nt.Tensor, nt.Tensor]:
        def step(carry: tuple[nt.Tensor, nt.Tensor]) -> tuple[nt.Tensor, nt.Tensor]:
            n, steps = carry
            return nt.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1

        return nt.while_loop(lambda carry: carry[0] != 1, step, (n, nt.wrap(0, "")))

    assert collatz(nt.wrap(27, ""))[1].item() == 111
    assert jax.jit(collatz)(nt.wrap(6, ""))[1].item() == 8


def test_cond_runs_one_branch_and_aligns_what_they_return() -> None:
    x = nt.wrap(XS[0], "t d")

    def choose(flag: nt.Tensor, x: nt.Tensor) -> Any:
        return nt.cond(flag, lambda x: {"y": x * 2}, lambda x: {"y": x.transpose("d t") - 1}, x)

    for run in (choose, jax.jit(choose)):
        np.testing.assert_allclose(run(nt.wrap(True, ""), x)["y"].numpy("t d"), XS[0] * 2)
        np.testing.assert_allclose(run(nt.wrap(False, ""), x)["y"].numpy("t d"), XS[0] - 1)


def test_cond_computes_only_the_branch_it_takes() -> None:
    def run(flag: nt.Tensor, x: nt.Tensor) -> Any:
        return nt.cond(flag, lambda: x.dot(x, "d"), lambda: x.sum("d"))

    text = jax.jit(run).lower(nt.wrap(True, ""), nt.wrap(XS[0], "t d")).as_text()
    assert "stablehlo.case" in text or "stablehlo.if" in text
    assert "stablehlo.select" not in text


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (lambda c, x: (c.cast("int32"), None), "the new carry holds int32, and init float32"),
        (lambda c, x: (c.rename("d -> k"), None), "the new carry has an axis 'k', unlike init"),
        (lambda c, x: (c.sum("d"), None), "the new carry lacks the axis 'd', unlike init"),
        (lambda c, x: (c.slice("d", 1), None), "the new carry has d=3, and init d=4"),
        (lambda c, x: ((c, c), None), "the new carry and init are not built alike"),
        (lambda c, x: c, "the function returns two things"),
        (lambda c, x: (c, 3), "y is not a tensor with named axes"),
        (lambda c, x: (c, x.broadcast(t=2)), "the output y already has the axis 't'"),
    ],
)
def test_scan_says_what_is_wrong_with_a_step(step: Any, problem: str) -> None:
    for run in (nt.scan, jax.jit(nt.scan, static_argnums=0, static_argnames="axis")):
        with pytest.raises(nt.NamedTensorError) as raised:
            run(step, nt.zeros("b d", b=2, d=4), nt.wrap(XS, "b t d"), axis="t")
        assert problem in raised.value.headline


def test_a_carry_that_changes_is_named_by_its_place() -> None:
    start = {"k": nt.zeros("s", s=3), "v": [nt.zeros("s", s=3)]}
    with pytest.raises(nt.AxisError, match=r"the new carry\['v'\]\[0\] has s=4, and init s=3"):
        nt.scan(lambda c, _: ({**c, "v": [c["v"][0].pad(s=(0, 1))]}, None), start, axis="t", length=2)


@pytest.mark.parametrize(
    ("xs", "options", "problem"),
    [
        (nt.ones("b", b=2), {}, "xs has no axis 't'"),
        ((nt.ones("t", t=2), nt.ones("t", t=3)), {}, "axis 't' has size 2 in xs[0] and 3 in xs[1]"),
        (None, {}, "there is nothing to go along"),
        (None, {"length": -1}, "length=-1 is not a number of steps"),
        (nt.ones("t", t=2), {"length": 3}, "length=3, and xs has 2 along 't'"),
        (jnp.ones(3), {}, "xs is not a tensor with named axes"),
    ],
)
def test_scan_says_what_is_wrong_with_its_inputs(xs: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(nt.NamedTensorError) as raised:
        nt.scan(lambda c, x: (c, None), nt.ones("b", b=2), xs, axis="t", **options)
    assert problem in raised.value.headline


def test_branches_that_differ_are_shown_side_by_side() -> None:
    x = nt.ones("b d", b=2, d=4)
    with pytest.raises(nt.AxisError) as raised:
        nt.cond(nt.wrap(True, ""), lambda: x, lambda: x.sum("d"))
    assert raised.value.headline == "cond: branch no lacks the axis 'd', unlike branch yes"
    assert "branch yes  (b=2, d=4) float32" in str(raised.value)
    assert "branch no   (b=2) float32" in str(raised.value)
