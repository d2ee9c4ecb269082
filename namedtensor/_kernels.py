"""The native CPU contraction: the library that holds it, the shapes it is for, and the call itself.

XLA:CPU computes products of few rows far below the memory's rate, because it widens half-precision weights to f32 in
memory first. The custom call `nt.dot` (runner/kernels) reads them once, as they are. Products of many rows go the same
way, so that a program gives the same results in an archive, where XLA is not. `scripts/build-kernels` puts its library
into `_native/`; without it, or with NAMEDTENSOR_KERNELS=off in the environment, XLA's own contraction is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TARGET = "nt.dot"
LIBRARY = Path(__file__).with_name("_native") / (
    "libnt_kernels.dylib" if sys.platform == "darwin" else "libnt_kernels.so"
)

_registering = threading.Lock()

# Contracted axes of x and w, batch axes of both.
_DIMENSIONS: dict[str, Any] = {"nk": (((2,), (2,)), ((0,), (0,))), "kn": (((2,), (1,)), ((0,), (0,)))}

_INT8 = np.dtype(np.int8)
_F32 = np.dtype(np.float32)
_DTYPES = (np.dtype(jnp.bfloat16), np.dtype(np.float16), _F32, _INT8)


def available() -> bool:
    """Whether the native contraction can be used in this process."""
    return os.environ.get("NAMEDTENSOR_KERNELS", "").lower() not in ("off", "0", "false") and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, or None where there is none."""
    if not LIBRARY.exists():
        return None
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        warnings.warn(f"The CPU kernels cannot be loaded, XLA's own are used: {error}", RuntimeWarning, stacklevel=2)
        return None


def register() -> bool:
    """Makes `nt.dot` known to XLA:CPU, once; needed before a program that calls it is compiled or loaded.

    Returns: whether it is known now.
    """
    return available() and _registered()


def _registered() -> bool:
    with _registering:
        return _register()


@functools.cache
def _register() -> bool:
    native = library()
    if native is None:
        return False
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(native.nt_dot), platform="cpu")
    return True


def worthwhile(batch: int, m: int, n: int, k: int, *, dtype: Any, out_dtype: Any) -> bool:
    """Whether the native contraction is the better one for x `(batch, m, k)` and weights of `(batch, n, k)`.

    By sizes and types only, and so by the same rule for programs that run in Python and for those that are compiled
    ahead of time: the same products in the same order are what makes both give the same text.
    """
    dtype, out_dtype = np.dtype(dtype), np.dtype(out_dtype)
    if dtype not in _DTYPES or (dtype == _INT8) != jnp.issubdtype(out_dtype, jnp.integer):
        return False
    return batch * m * n * k >= _LEAST_PRODUCTS and not _nowhere.value and available()


# A part of jax's own keys: functions that were traced outside are traced anew inside, and the other way round.
_nowhere: Any = jax.make_user_context(False)


@contextlib.contextmanager
def nowhere() -> Iterator[None]:
    """While the block runs, contractions are traced as XLA's own: for programs that any of its compilers shall read."""
    with _nowhere(True):
        yield


# Below this many products a loop that is fused with its neighbours is better than a call.
_LEAST_PRODUCTS = 1 << 15


def dot(x: jax.Array, w: jax.Array, *, layout: str, out_dtype: Any) -> jax.Array:
    """x `(batch, m, k)` times w `(batch, n, k)` ("nk") or `(batch, k, n)` ("kn"). Returns: `(batch, m, n)`.

    Both operands are bfloat16, float16 or float32 and products are summed in float32, or both are int8 and products are
    summed in int32; the sum is then cast to `out_dtype`. Works under vmap (rows of x that share weights go through
    them together) and under differentiation (which falls back to XLA's contraction for the derivatives).

    Raises:
        RuntimeError: the library is not available; see `available`.
        ValueError: `layout` is not one of the two. XLA reports operands that do not fit together.
    """
    if layout not in _DIMENSIONS:
        raise ValueError(f'layout must be "nk" or "kn", not {layout!r}')
    if not register():
        raise RuntimeError(
            f"The CPU kernels are not available: {LIBRARY} is missing or NAMEDTENSOR_KERNELS is off. "
            "Run scripts/build-kernels."
        )
    out_dtype, operand = np.dtype(out_dtype), np.dtype(x.dtype)
    # The kernel writes the type it sums in or the operands' own; a further cast fuses with whatever follows.
    wide = np.dtype(np.int32) if operand == _INT8 else _F32
    native = out_dtype if out_dtype in (wide, operand) and out_dtype != _INT8 else wide
    return _contraction(layout, native)(x, w).astype(out_dtype)


@functools.cache
def _contraction(layout: str, out: np.dtype[Any]) -> Any:
    """The custom call for one layout and type of result, with its rules for vmap and differentiation."""

    def call(x: jax.Array, w: jax.Array) -> jax.Array:
        n = w.shape[1 if layout == "nk" else 2]
        result = jax.ShapeDtypeStruct((*x.shape[:2], n), out)
        return jax.ffi.ffi_call(TARGET, result)(x, w, w_layout=layout)

    def general(x: jax.Array, w: jax.Array) -> jax.Array:
        precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
        return lax.dot_general(x, w, _DIMENSIONS[layout], precision=precision, preferred_element_type=out)

    def best(x: jax.Array, w: jax.Array) -> jax.Array:
        (b, m, k), n = x.shape, w.shape[1 if layout == "nk" else 2]
        return (batched if worthwhile(b, m, n, k, dtype=x.dtype, out_dtype=out) else general)(x, w)

    batched = jax.custom_batching.custom_vmap(call)

    @batched.def_vmap
    def _(size: int, in_batched: list[bool], x: jax.Array, w: jax.Array) -> tuple[jax.Array, bool]:
        x_batched, w_batched = in_batched
        if not w_batched:
            # More rows for the same weights, which are then read once for all.
            v, b, m, k = x.shape
            y = best(jnp.moveaxis(x, 0, 1).reshape(b, v * m, k), w)
            return jnp.moveaxis(y.reshape(b, v, m, -1), 1, 0), True
        if not x_batched:
            x = jnp.broadcast_to(x, (size, *x.shape))
        v, b, m, k = x.shape
        y = best(x.reshape(v * b, m, k), w.reshape(v * b, *w.shape[2:]))
        return y.reshape(v, b, m, -1), True

    @jax.custom_jvp
    def contraction(x: jax.Array, w: jax.Array) -> jax.Array:
        return batched(x, w)

    @contraction.defjvp
    def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        (x, w), (dx, dw) = primals, tangents
        return contraction(x, w), general(dx, w) + general(x, dw)

    return contraction
