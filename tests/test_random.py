"""Random numbers: jax's own from the same key data, the right moments, keys as ordinary tensors."""

from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt

KEY = nt.random.key(7)
PLAIN: Any = jax.random.key(0)


def same_as_jax(draw: Any) -> np.ndarray[Any, Any]:
    return np.asarray(draw(jax.random.key(7, impl="threefry2x32")))


def test_bits_are_those_of_threefry() -> None:
    # Known answers of Salmon et al. for Threefry-2x32 with 20 rounds: counter and key of all zeros, then of all ones.
    def block(key: list[int], counter: list[int]) -> list[int]:
        words = jnp.asarray(counter, jnp.uint32)
        return jax.extend.random.threefry_2x32(jnp.asarray(key, jnp.uint32), words).tolist()

    assert block([0, 0], [0, 0]) == [0x6B200159, 0x99BA4EFE]
    assert block([0xFFFFFFFF] * 2, [0xFFFFFFFF] * 2) == [0x1CB996FC, 0xBB002BE7]
    # A key folded with n is the block at counter (0, n).
    assert nt.random.fold_in(nt.random.key(0), 0).numpy("key").tolist() == block([0, 0], [0, 0])


def test_golden_numbers_never_change() -> None:
    assert KEY.numpy("key").tolist() == [0, 7]
    assert nt.random.split(KEY)[0].numpy("key").tolist() == [3625411723, 1954958720]
    drawn = nt.random.uniform(KEY, "n", n=4).numpy("n")
    assert (drawn * 2**23).tolist() == [5654676, 8175679, 2540436, 3724194]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: nt.random.uniform(KEY, "b s", b=2, s=3), lambda k: jax.random.uniform(k, (2, 3))),
        (lambda: nt.random.uniform(KEY, "s", low=-2, high=5, s=3), lambda k: jax.random.uniform(k, (3,), None, -2, 5)),
        (lambda: nt.random.normal(KEY, "b s", b=2, s=3), lambda k: jax.random.normal(k, (2, 3))),
        (lambda: nt.random.normal(KEY, "s", dtype="bfloat16", s=9), lambda k: jax.random.normal(k, (9,), "bfloat16")),
        (lambda: nt.random.gumbel(KEY, "b", b=5), lambda k: jax.random.gumbel(k, (5,))),
        (lambda: nt.random.randint(KEY, "b", low=-3, high=9, b=5), lambda k: jax.random.randint(k, (5,), -3, 9)),
        (lambda: nt.random.bernoulli(KEY, 0.3, "b", b=9), lambda k: jax.random.bernoulli(k, 0.3, (9,))),
        (lambda: nt.random.fold_in(KEY, 5), lambda k: jax.random.key_data(jax.random.fold_in(k, 5))),
    ],
)  # fmt: skip
def test_draws_what_jax_draws(ours: Any, theirs: Any) -> None:
    tensor = ours()
    np.testing.assert_array_equal(tensor.numpy(" ".join(tensor.axes)), same_as_jax(theirs))


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (nt.random.uniform, 0.5, 12**-0.5),
        (nt.random.normal, 0, 1),
        (nt.random.gumbel, np.euler_gamma, np.pi / 6**0.5),
    ],
)
def test_moments(draw: Any, mean: float, deviation: float) -> None:
    x = draw(KEY, "n", n=100_000)
    assert x.mean("n").item() == pytest.approx(mean, abs=0.02)
    assert x.std("n").item() == pytest.approx(deviation, rel=0.02)


def test_categorical_draws_with_the_probabilities_of_the_softmax() -> None:
    logits = nt.wrap([0.0, 1.0, 2.0, -jnp.inf], "v")
    drawn = nt.random.categorical(KEY, logits.broadcast(n=50_000), "v")
    shares = nt.one_hot(drawn, "v", 4).mean("n").numpy("v")
    np.testing.assert_allclose(shares, logits.softmax("v").numpy("v"), atol=0.01)
    assert shares[3] == 0


@given(order=st.permutations(["b", "s", "v"]))
@settings(max_examples=6)
def test_categorical_does_not_depend_on_the_stored_order(order: list[str]) -> None:
    logits = nt.random.normal(KEY, "b s v", b=3, s=4, v=5)
    expected = nt.random.categorical(KEY, logits, "v").numpy("b s")
    found = nt.random.categorical(KEY, logits.transpose(" ".join(order)), "v")
    np.testing.assert_array_equal(found.numpy("b s"), expected)


def test_each_of_many_keys_draws_its_own_numbers_whoever_else_is_there() -> None:
    keys = nt.random.fold_in(KEY, nt.arange("b", 4))
    assert keys.sizes == {"b": 4, "key": 2}
    together = nt.random.normal(keys, "n", n=3)
    for i in range(4):
        alone = nt.random.normal(nt.random.fold_in(KEY, i), "n", n=3)
        np.testing.assert_array_equal(together.index("b", i).numpy("n"), alone.numpy("n"))
    logits = nt.random.normal(KEY, "b v", b=4, v=5)
    drawn = nt.random.categorical(keys, logits, "v")
    last = nt.random.categorical(keys.slice("b", 3), logits.slice("b", 3), "v")
    assert drawn.index("b", 3).item() == last.sum("b").item()


def test_axes_of_keys_and_of_what_is_folded_in_pair_up() -> None:
    keys = nt.random.fold_in(KEY, nt.arange("b", 2))
    both = nt.random.fold_in(keys, nt.arange("b", 2) + 5)
    outer = nt.random.fold_in(keys, nt.arange("c", 3))
    assert (both.sizes, outer.sizes) == ({"b": 2, "key": 2}, {"b": 2, "c": 3, "key": 2})
    one = nt.random.fold_in(nt.random.fold_in(KEY, 1), 6).numpy("key")
    np.testing.assert_array_equal(both.index("b", 1).numpy("key"), one)


def test_keys_are_inputs_and_outputs_of_programs() -> None:
    def step(key: nt.Tensor) -> tuple[nt.Tensor, nt.Tensor]:
        key, sub = nt.random.split(key)
        return key, nt.random.uniform(sub, "n", n=3)

    compiled = jax.jit(step)
    key, drawn = compiled(KEY)
    expected_key, expected = step(KEY)
    np.testing.assert_array_equal(key.numpy("key"), expected_key.numpy("key"))
    np.testing.assert_array_equal(drawn.numpy("n"), expected.numpy("n"))
    text = compiled.lower(nt.spec("key", "uint32", key=2)).as_text()
    assert "custom_call" not in text  # plain StableHLO, which every platform has


def test_a_seed_may_be_known_only_at_run_time() -> None:
    found = jax.jit(nt.random.key)(nt.wrap(7, ""))
    np.testing.assert_array_equal(found.numpy("key"), KEY.numpy("key"))
    assert nt.random.key(nt.arange("b", 3)).sizes == {"b": 3, "key": 2}
    assert nt.random.key(2**33 + 5).numpy("key").tolist() == [2, 5]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda: nt.random.uniform(PLAIN, "b", b=2), "the first argument is a random key"),
        (lambda: nt.random.uniform(nt.zeros("key", key=2)), "the first argument is a random key"),
        (lambda: nt.random.key(-1), "a seed is a whole number"),
        (lambda: nt.random.key(nt.ones("b", b=2)), "a seed is an integer"),
        (lambda: nt.random.split(KEY, 0), "0 is not a number of keys"),
        (lambda: nt.random.fold_in(KEY, KEY), "not a key"),
        (lambda: nt.random.fold_in(KEY, 2**32), "not a whole number from 0 to 2**32 - 1"),
        (lambda: nt.random.uniform(KEY, "b"), "no size for axis 'b'"),
        (lambda: nt.random.normal(KEY, dtype="int32"), "a floating type is needed"),
        (lambda: nt.random.randint(KEY, low=3, high=3), "nothing lies between"),
        (lambda: nt.random.randint(KEY, high=300, dtype="uint8"), "nothing lies between"),
        (lambda: nt.random.bernoulli(KEY, nt.ones("b", b=2), "b", b=2), "the axes are those of p"),
        (lambda: nt.random.categorical(KEY, nt.ones("b", b=2), "v"), "'v' is not an axis"),
        (lambda: nt.random.uniform(nt.random.key(nt.arange("b", 2)), "b", b=2), "axis 'b' is one of the keys'"),
    ],
)
def test_misuse_is_refused(wrong: Any, problem: str) -> None:
    with pytest.raises(nt.NamedTensorError) as raised:
        wrong()
    assert problem in raised.value.headline


def test_another_counter_layout_is_refused_rather_than_drawn_from() -> None:
    with jax.threefry_partitionable(False), pytest.raises(nt.ModelError, match="jax_threefry_partitionable is off"):
        nt.random.uniform(KEY)
