"""Rate at which a contraction of few rows goes through its weights: `python -m benchmarks.dot [--rows 1,2,4,8,16]`.

For both layouts of the weights, every type and several numbers of rows, in turn and several times over:

- `read`: all threads read as many bytes and do nothing with them, the most that the memory gives.
- `nt.dot`: the native contraction.
- `XLA`: XLA's own contraction, results in the same type.

Each goes through different matrices of one size, more of them than the caches hold, inside one compiled program.
Prints the best rate of each in GB of weights per second, and the native contraction as a share of both others.
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.table import Table

from namedtensor import _kernels

DTYPES = {"bf16": jnp.bfloat16, "f16": jnp.float16, "f32": jnp.float32, "int8": jnp.int8}
DIMENSIONS: dict[str, Any] = {"nk": (((2,), (2,)), ((0,), (0,))), "kn": (((2,), (1,)), ((0,), (0,)))}


def matrices(shape: tuple[int, ...], dtype: Any, nbytes: int) -> list[jax.Array]:
    """Different buffers of about `nbytes` together."""
    rng = np.random.default_rng(0)
    first = jnp.asarray(rng.integers(-8, 8, shape, np.int8)).astype(dtype)
    return [first] + [jnp.array(first, copy=True) for _ in range(max(1, round(nbytes / first.nbytes)) - 1)]


def program(one: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, list[jax.Array]], jax.Array]:
    """The contraction with every matrix, one after the other as in a model."""

    def run(x: jax.Array, weights: list[jax.Array]) -> jax.Array:
        total = jnp.zeros((), jnp.float32)
        for w in weights:
            # The next operand waits for this result, as a layer waits for the one before.
            y = one(x + (total * 0).astype(x.dtype), w)
            total += y[0, 0, 0].astype(jnp.float32)
        return total

    return jax.jit(run)


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,2,4,8,16", help="numbers of rows, separated by commas")
    parser.add_argument("--dtypes", default="bf16,f16,f32,int8", help="types, separated by commas")
    parser.add_argument("--layouts", default="nk,kn", help="layouts of the weights, separated by commas")
    parser.add_argument("--n", type=int, default=8192, help="outputs of a matrix")
    parser.add_argument("--k", type=int, default=2048, help="inputs of a matrix")
    parser.add_argument("--megabytes", type=int, default=256, help="weights together")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    library = _kernels.library()
    if library is None or not _kernels.register():
        raise SystemExit("The native contraction is not available; run scripts/build-kernels.")
    library.nt_read_bandwidth.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.nt_read_bandwidth.restype = ctypes.c_uint64
    buffer = np.ones(options.megabytes << 20, np.uint8)

    table = Table(
        title=f"GB/s over weights of {options.n} outputs × {options.k} inputs, {library.nt_threads()} threads"
    )
    for column in ("layout", "type", "rows", "read", "nt.dot", "XLA", "nt.dot / read", "nt.dot / XLA"):
        table.add_column(column, justify="left" if column in ("layout", "type") else "right")
    for layout in options.layouts.split(","):
        shape = (1, options.n, options.k) if layout == "nk" else (1, options.k, options.n)
        for name in options.dtypes.split(","):
            dtype = DTYPES[name]
            out = jnp.int32 if dtype == jnp.int8 else dtype
            weights = matrices(shape, dtype, options.megabytes << 20)
            size = sum(w.nbytes for w in weights)

            def native(x: jax.Array, w: jax.Array, layout: str = layout, out: Any = out) -> jax.Array:
                return _kernels.dot(x, w, layout=layout, out_dtype=out)

            def general(x: jax.Array, w: jax.Array, layout: str = layout, out: Any = out) -> jax.Array:
                return lax.dot_general(x, w, DIMENSIONS[layout], preferred_element_type=out)

            ours, theirs = program(native), program(general)
            for rows in map(int, options.rows.split(",")):
                x = jnp.ones((1, rows, options.k), dtype)
                calls: list[Callable[[], Any]] = [
                    lambda: library.nt_read_bandwidth(buffer.ctypes.data, buffer.nbytes),
                    lambda x=x, weights=weights, ours=ours: ours(x, weights),  # type: ignore[misc]
                    lambda x=x, weights=weights, theirs=theirs: theirs(x, weights),  # type: ignore[misc]
                ]
                for call in calls:
                    seconds(call)
                rounds = [[seconds(call) for call in calls] for _ in range(options.rounds)]
                best = [min(times) for times in zip(*rounds, strict=True)]
                read, nt, xla = (n / t / 1e9 for n, t in zip((buffer.nbytes, size, size), best, strict=True))
                cells = (f"{read:.1f}", f"{nt:.1f}", f"{xla:.1f}", f"{nt / read:.2f}", f"{nt / xla:.2f}")
                table.add_row(layout, name, str(rows), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
