"""However an attention block is written down, its program moves no more data than the best hand-written JAX one.

The compiler's own output is counted: `transpose` and `copy` instructions of the optimized program, in all of its
computations. Grouped heads, a KV cache that is appended to in place, prefill and decode, several layouts of what comes
in and goes out.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt

SIZES = {"b": 2, "t": 32, "k": 2, "g": 3, "h": 16, "d": 24}
HEADS, HD, KEYS = 6, 16, 32
SCALE = HD**-0.5
NAMES = {"b": "b", "s": "s", "d": "d", "t": "keys", "k": "kv", "h": "hd"}

# How activations and caches are stored, in einsum's letters: the layout of most models, then less usual ones.
LAYOUTS = [("bsd", "btkh"), ("bsd", "bkth"), ("bsd", "bkht"), ("bsd", "tbkh")]
LENGTHS = {"decode": 1, "prefill": 8}

WEIGHTS = ("wq", "wk", "wv", "wo")

Arrays = dict[str, jax.Array]
Block = Callable[[Arrays], tuple[jax.Array, jax.Array, jax.Array]]


@pytest.fixture(autouse=True)
def _without_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA's own contractions are what is counted here."""
    monkeypatch.setenv("NAMEDTENSOR_KERNELS", "off")


def spec(letters: str) -> str:
    return " ".join(NAMES[letter] for letter in letters)


def arrays(s: int, x: str, cache: str, *, turned: bool = False) -> Arrays:
    """What the block is given; `turned` stores the weights the other way round."""
    rng = np.random.default_rng(0)
    sizes = {**SIZES, "s": s}
    shapes = {
        "x": [sizes[n] for n in x],
        "wq": [HEADS * HD, 24],
        "wk": [2 * HD, 24],
        "wv": [2 * HD, 24],
        "wo": [24, HEADS * HD],
        "cache_k": [sizes[n] for n in cache],
        "cache_v": [sizes[n] for n in cache],
    }
    made = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    if turned:
        made.update((name, jnp.asarray(made[name].T)) for name in WEIGHTS)
    return {**made, "pos": jnp.int32(3)}


def is_turned(a: Arrays) -> bool:
    return a["wq"].shape[1] == HEADS * HD


# -- hand-written: what a person who knows XLA would try


def by_hand(x: str, cache: str, *, scores: str, mixed: str, flat: bool) -> Block:
    """Attention in einsum; the arguments say how weights are presented and how what lies between is stored."""

    def run(a: Arrays) -> tuple[jax.Array, jax.Array, jax.Array]:
        if is_turned(a):
            a = {**a, **{name: a[name].T for name in WEIGHTS}}
        s = a["x"].shape[x.index("s")]
        sizes = {**SIZES, "s": s}
        new = cache.replace("t", "s")
        if flat:
            q = jnp.einsum(f"{x},nd->{x[:2]}n", a["x"], a["wq"]).reshape([sizes[n] for n in x[:2] + "kgh"])
            k, v = (
                jnp.einsum(f"{x},nd->{x[:2]}n", a["x"], a[w]).reshape([sizes[n] for n in x[:2] + "kh"])
                for w in ("wk", "wv")
            )
            k, v = (jnp.einsum(f"{x[:2]}kh->{new}", y) for y in (k, v))
        else:
            q = jnp.einsum(f"{x},kghd->{x[:2]}kgh", a["x"], a["wq"].reshape(2, 3, HD, 24))
            k, v = (jnp.einsum(f"{x},khd->{new}", a["x"], a[w].reshape(2, HD, 24)) for w in ("wk", "wv"))
        start = [a["pos"] if name == "t" else 0 for name in cache]
        cache_k = jax.lax.dynamic_update_slice(a["cache_k"], k, start)
        cache_v = jax.lax.dynamic_update_slice(a["cache_v"], v, start)
        keep = jnp.arange(KEYS) <= a["pos"] + jnp.arange(s)[:, None]
        if scores == "matmul":  # one axis for all rows of a head's group
            rows = jnp.einsum(f"{x[:2]}kgh->bksgh", q).reshape(2, 2, s * 3, HD)
            weights = jnp.einsum(f"bkmh,{cache}->bkmt", rows, cache_k).reshape(2, 2, s, 3, KEYS) * SCALE
            weights = jax.nn.softmax(jnp.where(keep[:, None, :], weights, -1e30), axis=-1)
            y = jnp.einsum(f"bkmt,{cache}->bkmh", weights.reshape(2, 2, s * 3, KEYS), cache_v)
            y = jnp.einsum(f"bksgh->{x[:2]}kgh", y.reshape(2, 2, s, 3, HD))
        else:
            weights = jnp.einsum(f"{x[:2]}kgh,{cache}->{scores}", q, cache_k) * SCALE
            shape = [{"s": s, "t": KEYS}.get(name, 1) for name in scores]
            weights = jax.nn.softmax(jnp.where(keep.reshape(shape), weights, -1e30), axis=-1)
            y = jnp.einsum(f"{scores},{cache}->{mixed}", weights, cache_v)
            y = jnp.einsum(f"{mixed}->{x[:2]}kgh", y)
        if flat:
            result = jnp.einsum(f"{x[:2]}n,dn->{x}", y.reshape(*y.shape[:2], HEADS * HD), a["wo"])
        else:
            result = jnp.einsum(f"{x[:2]}kgh,dkgh->{x}", y, a["wo"].reshape(24, 2, 3, HD))
        return result, cache_k, cache_v

    return run


def hand_written(x: str, cache: str) -> list[Block]:
    tries = [("matmul", "", True), ("bksgt", "bksgh", True), ("bksgt", "bksgh", False), ("bkgst", "bkgsh", True)]
    return [by_hand(x, cache, scores=scores, mixed=mixed, flat=flat) for scores, mixed, flat in tries]


# -- with named axes


def named(
    x: str, cache: str, *, swap: tuple[bool, ...] = (False,) * 5, late: bool = True, again: bool = False
) -> Block:
    """The block as a model writes it; `swap` exchanges the operands of each `dot`, `late` scales scores and not
    queries, `again` names axes in another order wherever an order can be written."""

    def dot(i: int, left: nt.Tensor, right: nt.Tensor, axes: str) -> nt.Tensor:
        return right.dot(left, axes) if swap[i] else left.dot(right, axes)

    def run(a: Arrays) -> tuple[jax.Array, jax.Array, jax.Array]:
        inputs, pos = nt.wrap(a["x"], spec(x)), nt.wrap(a["pos"], "")
        into, out = ("d (heads hd)", "(heads hd) d") if is_turned(a) else ("(heads hd) d", "d (heads hd)")
        wq, wo = nt.wrap(a["wq"], into, hd=HD), nt.wrap(a["wo"], out, hd=HD)
        wk, wv = (nt.wrap(a[name], into.replace("heads", "kv"), hd=HD) for name in ("wk", "wv"))
        old_k, old_v = (nt.wrap(a[name], spec(cache)) for name in ("cache_k", "cache_v"))

        q = dot(0, inputs, wq, "d").split("heads", "kv group", kv=2)
        if not late:
            q = q * SCALE
        cache_k = old_k.dynamic_update("keys", pos, dot(1, inputs, wk, "d").rename("s -> keys"))
        cache_v = old_v.dynamic_update("keys", pos, dot(1, inputs, wv, "d").rename("s -> keys"))
        scores = dot(2, q, cache_k, "hd")
        if late:
            scores = scores * SCALE
        at, keys = nt.arange("s", inputs.size("s")) + pos, nt.arange("keys", KEYS)
        keep = keys.broadcast(s=inputs.size("s")) <= at
        mixed = dot(3, scores.mask(keep).softmax("keys"), cache_v, "keys")
        result = dot(4, mixed.merge("kv group -> heads"), wo, "hd heads" if again else "heads hd")
        return result.data(spec(x)), cache_k.data(spec(cache)), cache_v.data(spec(cache))

    return run


def lowered(block: Block, a: Arrays) -> Any:
    """The block as a program that is given its caches to write into."""

    def program(caches: Arrays, rest: Arrays) -> Any:
        return block({**caches, **rest})

    caches = {name: a[name] for name in ("cache_k", "cache_v")}
    rest = {name: array for name, array in a.items() if name not in caches}
    return jax.jit(program, donate_argnums=0).lower(caches, rest)


def moves(block: Block, a: Arrays) -> int:
    """`transpose` and `copy` instructions in the compiled program."""
    text = lowered(block, a).compile().as_text()
    return len(re.findall(r"= \S+ (?:transpose|copy)\(", text))


@pytest.mark.parametrize(("x", "cache"), LAYOUTS)
@pytest.mark.parametrize("turned", [False, True], ids=["out-in", "in-out"])
@pytest.mark.parametrize("step", LENGTHS)
def test_moves_no_more_than_the_best_hand_written_program(step: str, turned: bool, x: str, cache: str) -> None:
    a = arrays(LENGTHS[step], x, cache, turned=turned)
    best = min(moves(block, a) for block in hand_written(x, cache))
    for late, again in ((True, False), (False, True)):
        assert moves(named(x, cache, late=late, again=again), a) <= best


@pytest.mark.parametrize("step", LENGTHS)
def test_the_side_on_which_an_operand_stands_changes_nothing(step: str) -> None:
    x, cache = LAYOUTS[0]
    a = arrays(LENGTHS[step], x, cache)
    swaps = itertools.product((False, True), repeat=5)
    texts = {lowered(named(x, cache, swap=swap), a).as_text() for swap in swaps}
    assert len(texts) == 1


@pytest.mark.parametrize(("x", "cache"), LAYOUTS)
def test_computes_what_the_hand_written_block_computes(x: str, cache: str) -> None:
    a = arrays(8, x, cache)
    expected = hand_written(x, cache)[1](a)
    for found, wanted in zip(named(x, cache, again=True)(a), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
