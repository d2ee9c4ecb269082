from typing import Any

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, arrays

FILTERS = arrays("sampling/filters.npz")
SETTINGS = [name for name in FILTERS if name.rpartition("_")[0] in ("temperature", "top_k", "top_p", "min_p")]


def logits(name="logits"):
    return nt.wrap(FILTERS[name], "b vocab")


def setting(name):
    number = name.rpartition("_")[2]
    return int(number) if "top_k" in name else float(number)


def same(found, expected, rtol=1e-6):
    found = found.numpy("b vocab")
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("given", ["number", "tensor", "traced"])
@pytest.mark.parametrize("name", SETTINGS)
def test_filters_equal_transformers(name, given):
    filter = getattr(nn, name.rpartition("_")[0])
    value = setting(name)
    if given == "number":
        found = filter(logits(), value)
    else:
        tensor = nt.wrap(np.int32(value) if isinstance(value, int) else np.float32(value), "")
        found = (jax.jit(filter) if given == "traced" else filter)(logits(), tensor)
    same(found, FILTERS[name])


def test_ties_at_the_bound_stay():
    same(nn.top_k(logits("tied"), 2), FILTERS["tied_top_k_2"])
    same(nn.min_p(logits("tied"), 0.9), FILTERS["tied_min_p_0.9"])
    assert np.isfinite(nn.top_p(nt.zeros("b vocab", b=1, vocab=5), 0.5).numpy("b vocab")).all()


def seen():
    mask = np.zeros(FILTERS["logits"].shape, bool)
    np.put_along_axis(mask, FILTERS["history"], True, axis=1)
    return nt.wrap(mask, "b vocab")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in FILTERS if name.startswith("repetition_")])
def test_repetition_penalty_equals_transformers(name, mode):
    found = MODES[mode](nn.repetition_penalty)(logits(), seen(), nt.wrap(np.float32(setting(name)), ""))
    same(found, FILTERS[name])


def test_all_of_them_in_order_equal_transformers():
    x = nn.repetition_penalty(logits(), seen(), 1.2)
    x = nn.temperature(x, 0.7)
    same(nn.min_p(nn.top_p(nn.top_k(x, 20), 0.9), 0.02), FILTERS["chain"], rtol=1e-5)


def drawn(x, seeds, **settings):
    """Ids drawn from each row of x, one draw for each seed: (seed, b)."""
    given = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0} | {k: v for k, v in settings.items() if k != "top_k"}
    tensors: dict[str, Any] = {name: nt.wrap(np.float32(value), "") for name, value in given.items()}
    tensors["top_k"] = nt.wrap(np.int32(settings.get("top_k", 0)), "")
    draw = jax.jit(lambda x, seed: nn.sample(nt.random.key(seed), x, **tensors))
    return np.stack([draw(x, nt.wrap(np.uint32(seed), "")).numpy("b") for seed in range(seeds)])


def test_draws_follow_the_probabilities():
    x = nt.wrap(np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32)).repeat(500, 0), "b vocab")
    counts = np.bincount(drawn(x, 8).ravel(), minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)


@pytest.mark.parametrize(
    ("settings", "filters"),
    [
        ({"top_k": 5}, ["top_k_5"]),
        ({"top_p": 0.5}, ["top_p_0.5"]),
        ({"min_p": 0.1}, ["min_p_0.1"]),
        ({"top_k": 5, "top_p": 0.9}, ["top_k_5", "top_p_0.9"]),
    ],
)
def test_only_ids_that_the_filters_left_are_drawn(settings, filters):
    x = logits()
    for name in filters:
        x = getattr(nn, name.rpartition("_")[0])(x, setting(name))
    allowed = np.isfinite(x.numpy("b vocab"))
    ids = drawn(logits(), 60, **settings)
    assert all(allowed[row, ids[:, row]].all() for row in range(len(allowed)))
    # And more than one of them, where more than one is left.
    assert any(len(np.unique(ids[:, row])) > 1 for row in range(len(allowed)))


def test_temperature_zero_is_greedy():
    ids = drawn(logits(), 3, temperature=0.0, top_k=3)
    np.testing.assert_array_equal(ids, np.argmax(FILTERS["logits"], 1)[None].repeat(3, 0))
    np.testing.assert_array_equal(nn.greedy(logits()).numpy("b"), ids[0])


def test_one_seed_gives_one_draw():
    x = nt.zeros("b vocab", b=16, vocab=1000)
    first, second = drawn(x, 2)
    np.testing.assert_array_equal(drawn(x, 1)[0], first)
    assert (first != second).any()
    assert len(np.unique(first)) > 8
