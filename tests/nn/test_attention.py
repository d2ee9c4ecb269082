import re

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, case, cases


def named(parameters, a):
    """The case's arrays by name; grouped heads are queries split into key heads and the groups that share them."""
    kv = a["k"].shape[1]
    q = nt.wrap(a["q"], "b (kv group) s hd", kv=kv)
    k, v = nt.wrap(a["k"], "b kv keys hd"), nt.wrap(a["v"], "b kv keys hd")
    options = {}
    if "mask" in a and a["mask"].dtype == bool:
        options["mask"] = nt.wrap(a["mask"], "b 1 s keys")
    elif "mask" in a:
        options["bias"] = nt.wrap(a["mask"], "1 (kv group) s keys", kv=kv)
    if parameters.get("is_causal"):
        options["mask"] = nn.causal_mask(nt.arange("s", q.size("s")), nt.arange("keys", k.size("keys")))
    if "scale" in parameters:
        options["scale"] = parameters["scale"]
    return q, k, v, options


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", cases("attention"))
def test_equals_pytorch(name, mode):
    parameters, a = case("attention", name)
    q, k, v, options = named(parameters, a)
    y = MODES[mode](lambda q, k, v: nn.attention(q, k, v, **options))(q, k, v)
    np.testing.assert_allclose(y.numpy("b (kv group) s hd"), a["out"], rtol=1e-4, atol=1e-5)


def test_the_order_of_axes_has_no_meaning():
    parameters, a = case("attention", "grouped-causal")
    q, k, v, options = named(parameters, a)
    y = nn.attention(
        q.transpose("hd s group kv b"), k.transpose("keys kv hd b"), v.transpose("hd b kv keys"), **options
    )
    np.testing.assert_allclose(y.numpy("b (kv group) s hd"), a["out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_window_shows_the_last_positions_only(window):
    visible = nn.causal_mask(nt.arange("s", 5, start=2), nt.arange("keys", 7), window=window).numpy("s keys")
    for i in range(5):
        for j in range(7):
            assert visible[i, j] == (i + 2 - window < j <= i + 2)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(nt.ModelError, match="a window of 0 positions shows nothing"):
        nn.causal_mask(nt.arange("s", 5), nt.arange("keys", 5), window=0)


def test_queries_and_keys_under_one_name_are_refused():
    x = nt.ones("s hd", s=3, hd=4)
    with pytest.raises(nt.AxisError, match=r"each would meet one key only[\s\S]*rename"):
        nn.attention(x, x, x, keys="s")


def test_half_types_have_their_scores_and_softmax_in_f32():
    _, a = case("attention", "plain")
    halves = [nt.wrap(a[n], f"b heads {s} hd").cast("bfloat16") for n, s in (("q", "s"), ("k", "keys"), ("v", "keys"))]
    y = nn.attention(*halves)
    assert y.dtype == halves[0].dtype
    wide = nn.attention(*(x.cast("float32") for x in halves))
    # Rounded twice: the weights to v's type, and the result.
    np.testing.assert_allclose(y.cast("float32").numpy("b heads s hd"), wide.numpy("b heads s hd"), atol=2e-2)


class TestKVCache:
    def filled(self, start, *, b=2, rows=3):
        random = np.random.default_rng(0)
        k, v = (nt.wrap(random.normal(size=(b, rows, 2, 4)).astype(np.float32), "b s kv hd") for _ in range(2))
        cache = nn.KVCache.zeros(b=b, kv=2, keys=8, hd=4, dtype="float32")
        return cache.append(k, v, start), k, v

    @pytest.mark.parametrize("mode", MODES)
    def test_positions_land_in_their_places(self, mode):
        cache, k, v = MODES[mode](lambda start: self.filled(start))(nt.wrap(np.int32(4), ""))
        for stored, given in ((cache.k, k), (cache.v, v)):
            np.testing.assert_array_equal(stored.numpy("b keys kv hd")[:, 4:7], given.numpy("b s kv hd"))
            assert not stored.numpy("b keys kv hd")[:, :4].any()

    def test_rows_may_stand_at_positions_of_their_own(self):
        cache, k, _ = self.filled(nt.wrap(np.array([0, 5], np.int32), "b"))
        np.testing.assert_array_equal(cache.k.numpy("b keys kv hd")[0, :3], k.numpy("b s kv hd")[0])
        np.testing.assert_array_equal(cache.k.numpy("b keys kv hd")[1, 5:], k.numpy("b s kv hd")[1])

    def test_more_positions_than_it_holds_are_refused(self):
        with pytest.raises(nt.AxisError, match="9 positions do not fit into a cache of 8"):
            self.filled(nt.wrap(np.int32(0), ""), rows=9)

    def test_attention_over_it_equals_attention_over_the_whole(self):
        random = np.random.default_rng(1)
        q, k, v = (nt.wrap(random.normal(size=(1, 6, 2, 4)).astype(np.float32), "b s kv hd") for _ in range(3))
        mask = nn.causal_mask(nt.arange("s", 6), nt.arange("keys", 6), window=4)
        whole = nn.attention(q, k.rename("s -> keys"), v.rename("s -> keys"), mask=mask).numpy("b s kv hd")
        cache = nn.KVCache.zeros(b=1, kv=2, keys=8, hd=4, dtype="float32")
        for first, last in ((0, 3), (3, 4), (4, 6)):
            piece = [x.slice("s", first, last) for x in (q, k, v)]
            cache = cache.append(piece[1], piece[2], nt.wrap(np.int32(first), ""))
            visible = cache.visible(nt.arange("s", last - first, start=first), window=4)
            y = nn.attention(piece[0], cache.k, cache.v, mask=visible).numpy("b s kv hd")
            np.testing.assert_allclose(y, whole[:, first:last], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_decode_step_copies_no_cache(self, dtype):
        def step(cache, q, k, v, start):
            cache = cache.append(k, v, start)
            return cache, nn.attention(q, cache.k, cache.v, mask=cache.visible(start.broadcast(s=1)))

        cache = nn.KVCache.spec(b=1, kv=8, keys=512, hd=64, dtype=dtype)
        q = nt.spec("b s kv group hd", dtype, b=1, s=1, kv=8, group=4, hd=64)
        k = nt.spec("b s kv hd", dtype, b=1, s=1, kv=8, hd=64)
        lowered = jax.jit(step, donate_argnums=0).lower(cache, q, k, k, nt.spec("b", "int32", b=1))
        assert not re.findall(r"= \w+\[1,8,512,64\]\S* (?:copy|transpose)\(", str(lowered.compile().as_text()))

    def test_its_buffers_are_apart_so_that_both_can_be_donated(self):
        cache = nn.KVCache.zeros(b=1, kv=1, keys=4, hd=4, dtype="float32")
        step = jax.jit(lambda cache: cache.replace(k=cache.k + 1, v=cache.v + 2), donate_argnums=0)
        assert step(cache).k.numpy("b kv keys hd").max() == 1

    def test_its_spec_is_its_shape(self):
        spec = nn.KVCache.spec(b=1, kv=2, keys=4, hd=8, dtype="bfloat16")
        real = nn.KVCache.zeros(b=1, kv=2, keys=4, hd=8, dtype="bfloat16")
        assert spec.k.sizes == real.k.sizes
        assert spec.k.dtype == real.k.dtype
        assert spec.capacity == 4
