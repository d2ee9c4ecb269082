"""A Llama written by hand in plain JAX, the way people write one: the peer of our own."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.shapes import Shape

Params = dict[str, Any]
Cache = list[tuple[jax.Array, jax.Array]]


def param_shapes(shape: Shape, dtype: Any) -> Params:
    """Weights in the orders in which checkpoints store them."""

    def array(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    d, f, hd = shape.width, shape.hidden, shape.head_dim
    layer = {
        "attention_norm": array(d),
        "q": array(shape.heads * hd, d),
        "k": array(shape.kv_heads * hd, d),
        "v": array(shape.kv_heads * hd, d),
        "o": array(d, shape.heads * hd),
        "mlp_norm": array(d),
        "gate": array(f, d),
        "up": array(f, d),
        "down": array(d, f),
    }
    return {
        "embedding": array(shape.vocabulary, d),
        "layers": [layer] * shape.layers,
        "norm": array(d),
        "output": array(shape.vocabulary, d),
    }


def cache_shapes(shape: Shape, dtype: Any) -> Any:
    one = jax.ShapeDtypeStruct((1, shape.kv_heads, shape.context, shape.head_dim), dtype)
    return [(one, one)] * shape.layers


def rms_norm(x: jax.Array, weight: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-5)
    return scaled.astype(x.dtype) * weight


def rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    wide = x.astype(jnp.float32)
    rotated = jnp.concatenate([-wide[..., half:], wide[..., :half]], axis=-1)
    return (wide * cos[None, :, None, :] + rotated * sin[None, :, None, :]).astype(x.dtype)


def attention(p: Params, x: jax.Array, cache: Any, start: jax.Array, shape: Shape) -> tuple[jax.Array, Any]:
    b, s, _ = x.shape
    hd, kv = shape.head_dim, shape.kv_heads
    positions = start + jnp.arange(s)
    frequencies = 1.0 / 10000.0 ** (jnp.arange(0, hd, 2, dtype=jnp.float32) / hd)
    angles = positions[:, None].astype(jnp.float32) * frequencies[None, :]
    cos, sin = (jnp.concatenate([f(angles)] * 2, axis=-1) for f in (jnp.cos, jnp.sin))
    q = rope(jnp.einsum("bsd,od->bso", x, p["q"]).reshape(b, s, shape.heads, hd), cos, sin)
    k = rope(jnp.einsum("bsd,od->bso", x, p["k"]).reshape(b, s, kv, hd), cos, sin)
    v = jnp.einsum("bsd,od->bso", x, p["v"]).reshape(b, s, kv, hd)
    keys, values = cache
    keys = jax.lax.dynamic_update_slice(keys, k.swapaxes(1, 2), (0, 0, start, 0))
    values = jax.lax.dynamic_update_slice(values, v.swapaxes(1, 2), (0, 0, start, 0))
    q = q.reshape(b, s, kv, shape.heads // kv, hd)
    scores = jnp.einsum("bsgqh,bgkh->bgqsk", q, keys).astype(jnp.float32) * hd**-0.5
    visible = jnp.arange(shape.context)[None, :] <= positions[:, None]
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1).astype(x.dtype)
    mixed = jnp.einsum("bgqsk,bgkh->bsgqh", weights, values).reshape(b, s, -1)
    return jnp.einsum("bso,do->bsd", mixed, p["o"]), (keys, values)


def block(p: Params, x: jax.Array, cache: Any, start: jax.Array, shape: Shape) -> tuple[jax.Array, Any]:
    mixed, cache = attention(p, rms_norm(x, p["attention_norm"]), cache, start, shape)
    x = x + mixed
    h = rms_norm(x, p["mlp_norm"])
    gate = jax.nn.silu(jnp.einsum("bsd,fd->bsf", h, p["gate"]))
    return x + jnp.einsum("bsf,df->bsd", gate * jnp.einsum("bsd,fd->bsf", h, p["up"]), p["down"]), cache


def forward(params: Params, cache: Cache, tokens: jax.Array, start: jax.Array, shape: Shape) -> tuple[jax.Array, Cache]:
    """Logits of the last position for tokens (b, s) at positions `start`, and the cache with them in it."""
    x = params["embedding"][tokens]
    updated = []
    for p, c in zip(params["layers"], cache, strict=True):
        x, c = block(p, x, c, start, shape)
        updated.append(c)
    last = rms_norm(x[:, -1], params["norm"])
    return jnp.einsum("bd,vd->bv", last, params["output"]).astype(jnp.float32), updated
