"""Convolution and pooling over named windows: sums over windows in numpy, and PyTorch's results."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import namedtensor as nt
from tests.strategies import stored

GOLDEN = Path(__file__).parent / "golden" / "nn"
PYTORCH: dict[str, dict[str, dict[str, Any]]] = json.loads((GOLDEN / "cases.json").read_text())
AXES = ("h", "w")

type Array = np.ndarray[Any, Any]


def ends(padding: Any, size: int, extent: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, from the definition of "same": ceil(size / stride) results."""
    if padding in ("same", "same_lower"):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        return (small, large) if padding == "same" else (large, small)
    return {"valid": (0, 0)}.get(padding, padding if isinstance(padding, tuple) else (padding, padding))


def windows(x: Array, taps: tuple[int, int], stride: int, padding: Any, dilation: int, fill: float = 0) -> Array:
    """x (b c h w) as (b c h' w' kh kw), by plain loops."""
    extents = [dilation * (k - 1) + 1 for k in taps]
    widths = [ends(padding, size, extent, stride) for size, extent in zip(x.shape[2:], extents, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill)
    counts = [(size - extent) // stride + 1 for size, extent in zip(padded.shape[2:], extents, strict=True)]
    out = np.empty((*x.shape[:2], *counts, *taps), x.dtype)
    for i, j, p, q in itertools.product(*map(range, (*counts, *taps))):
        out[:, :, i, j, p, q] = padded[:, :, i * stride + p * dilation, j * stride + q * dilation]
    return out


def random(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


IMAGE = random(2, 4, 6, 5)
PADDINGS = ["valid", "same", "same_lower", 1, (0, 2)]


@given(data=st.data())
@settings(max_examples=25)
def test_conv_is_a_sum_over_windows_in_any_stored_order(data: st.DataObject) -> None:
    stride, dilation = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 2]))
    padding: Any = data.draw(st.sampled_from(PADDINGS))
    kernel = random(3, 4, 3, 2)
    x = stored(IMAGE, "b c h w", data.draw(st.permutations(["b", "c", "h", "w"])))
    k = stored(kernel, "out c kh kw", data.draw(st.permutations(["out", "c", "kh", "kw"])))
    found = x.conv(k, "c", window={"h": "kh", "w": "kw"}, stride=stride, padding=padding, dilation=dilation)
    expected = np.einsum("bcijpq,ocpq->boij", windows(IMAGE, (3, 2), stride, padding, dilation), kernel)
    assert set(found.axes) == {"b", "out", "h", "w"}
    np.testing.assert_allclose(found.numpy("b out h w"), expected, rtol=1e-4, atol=1e-4)


@given(data=st.data())
@settings(max_examples=12)
def test_names_that_are_shared_and_not_contracted_pair_up(data: st.DataObject) -> None:
    image, kernel = random(2, 2, 3, 6, 5), random(3, 2, 2, 3, 2)  # (b g c h w), (c g m kh kw)
    x = stored(image, "b g c h w", data.draw(st.permutations(["b", "g", "c", "h", "w"])))
    k = stored(kernel, "c g m kh kw", data.draw(st.permutations(["c", "g", "m", "kh", "kw"])))
    contracted = data.draw(st.sampled_from(["", "c", "g c"]))
    found = x.conv(k, contracted, window={"h": "kh", "w": "kw"})
    cut = windows(image.reshape(2, 6, 6, 5), (3, 2), 1, "valid", 1).reshape(2, 2, 3, 4, 4, 3, 2)
    kept = "".join(name for name in "gc" if name not in contracted)
    expected = np.einsum(f"bgcijpq,cgmpq->b{kept}mij", cut, kernel)
    np.testing.assert_allclose(found.numpy(" ".join(f"b{kept}m") + " h w"), expected, rtol=1e-4, atol=1e-4)


@given(data=st.data())
@settings(max_examples=25)
def test_pools_are_reductions_over_windows_in_any_stored_order(data: st.DataObject) -> None:
    stride = data.draw(st.sampled_from([1, 2]))
    padding: Any = data.draw(st.sampled_from(["valid", "same", 1, (0, 1)]))
    x = stored(IMAGE, "b c h w", data.draw(st.permutations(["b", "c", "h", "w"])))
    window = {"w": 2, "h": 3}
    cut = windows(IMAGE, (3, 2), stride, padding, 1)
    found = x.avg_pool(window=window, stride=stride, padding=padding)
    np.testing.assert_allclose(found.numpy("b c h w"), cut.mean((4, 5)), rtol=1e-5, atol=1e-6)
    inside = windows(np.ones_like(IMAGE), (3, 2), stride, padding, 1).sum((4, 5))
    found = x.avg_pool(window=window, stride=stride, padding=padding, count_include_pad=False)
    np.testing.assert_allclose(found.numpy("b c h w"), cut.sum((4, 5)) / inside, rtol=1e-5, atol=1e-6)
    lowest = windows(IMAGE, (3, 2), stride, padding, 1, fill=-np.inf)
    found = x.max_pool(window=window, stride=stride, padding=padding)
    np.testing.assert_array_equal(found.numpy("b c h w"), lowest.max((4, 5)))


def by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's lists, one number per axis, as dicts by name."""
    return {k: dict(zip(AXES, v, strict=False)) if isinstance(v, list) else v for k, v in settings.items()}


@pytest.mark.parametrize(("rank", "name"), [(r, n) for r in (1, 2) for n in PYTORCH[f"conv{r}d"]])
def test_conv_agrees_with_pytorch(rank: int, name: str) -> None:
    with np.load(GOLDEN / f"conv{rank}d.npz") as golden:
        values = {key.removeprefix(f"{name}."): golden[key] for key in golden.files if key.startswith(f"{name}.")}
    options = by_name(PYTORCH[f"conv{rank}d"][name])
    axes, taps = AXES[:rank], [f"k{axis}" for axis in AXES[:rank]]
    window, inside, outside = dict(zip(axes, taps, strict=True)), " ".join(axes), " ".join(taps)
    bias = nt.wrap(values["bias"], "out") if "bias" in values else nt.zeros("out", out=values["out"].shape[1])

    x, kernel = nt.wrap(values["x"], f"b c {inside}"), nt.wrap(values["weight"], f"out c {outside}")
    found = x.conv(kernel, "c", window=window, **options) + bias
    np.testing.assert_allclose(found.numpy(f"b out {inside}"), values["out"], rtol=1e-5, atol=1e-5)

    # The same with the groups as an axis of their own, which both sides have.
    groups = options.pop("groups", 1)
    x = nt.wrap(values["x"], f"b (g c) {inside}", g=groups)
    kernel = nt.wrap(values["weight"], f"(g out) c {outside}", g=groups)
    found = x.conv(kernel, "c", window=window, **options).merge("g out -> out") + bias
    np.testing.assert_allclose(found.numpy(f"b out {inside}"), values["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "name"), [(r, n) for r in (1, 2) for n in PYTORCH[f"pool{r}d"]])
def test_pools_agree_with_pytorch(rank: int, name: str) -> None:
    with np.load(GOLDEN / f"pool{rank}d.npz") as golden:
        x, expected = golden[f"{name}.x"], golden[f"{name}.out"]
    options = by_name(PYTORCH[f"pool{rank}d"][name])
    axes = " ".join(AXES[:rank])
    pool = getattr(nt.wrap(x, f"b c {axes}"), f"{options.pop('kind')}_pool")
    found = pool(window=options.pop("kernel_size"), **options)
    np.testing.assert_allclose(found.numpy(f"b c {axes}"), expected, rtol=1e-5, atol=1e-5)


def test_padding_is_given_per_axis() -> None:
    x, k = nt.ones("h w", h=5, w=5), nt.ones("kh kw", kh=3, kw=3)
    found = x.conv(k, "", window={"h": "kh", "w": "kw"}, padding={"h": "same", "w": (0, 2)}, stride={"w": 2})
    assert found.sizes == {"h": 5, "w": 3}


def test_stored_orders_that_xla_takes_are_not_moved() -> None:
    window = {"h": "kh", "w": "kw"}
    for image, kernel in (("b h w c", "kh kw c out"), ("b c h w", "out c kh kw"), ("h w b c", "out kh kw c")):
        x = nt.ones(image, b=2, h=6, w=5, c=4)
        k = nt.ones(kernel, kh=3, kw=2, c=4, out=3)
        text = jax.jit(lambda x, k: x.conv(k, "c", window=window)).lower(x, k).as_text()
        assert "stablehlo.transpose" not in text
        assert "stablehlo.reshape" not in text


@pytest.mark.parametrize(("dtype", "wide"), [("bfloat16", "float32"), ("int8", "int32")])
def test_products_are_accumulated_wider(dtype: str, wide: str) -> None:
    x, k = nt.full("w", 16, dtype, w=300), nt.full("k", 1, dtype, k=300)
    found = x.conv(k, "", window={"w": "k"}, dtype=wide)
    assert found.dtype == jnp.dtype(wide)
    assert found.sum("w").item() == 4800


def test_pools_keep_the_type() -> None:
    x = nt.ones("w", "bfloat16", w=512)
    assert x.avg_pool(window={"w": 512}).sum("w").item() == 1
    assert x.avg_pool(window={"w": 4}).dtype == x.max_pool(window={"w": 4}).dtype == jnp.bfloat16
    assert nt.arange("w", 6).max_pool(window={"w": 3}).numpy("w").tolist() == [2, 5]


def test_can_be_differentiated() -> None:
    x, k = nt.ones("w", w=5), nt.ones("k", k=3)
    slope = jax.grad(lambda k: x.conv(k, "", window={"w": "k"}).sum("w").array)(k)
    np.testing.assert_array_equal(slope.numpy("k"), [3, 3, 3])
    slope = jax.grad(lambda x: x.max_pool(window={"w": 2}).sum("w").array)(nt.arange("w", 4, "float32"))
    np.testing.assert_array_equal(slope.numpy("w"), [0, 1, 0, 1])
