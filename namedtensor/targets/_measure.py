"""The rates of this machine's processor, as far as XLA and plain reading reach them, in about a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor.targets import NATIVE, Chip

# Larger than any cache that one core can hope to keep for itself.
_READ = 256 << 20
_SIDE = 2048
_REPEATS = 5


def measure() -> Chip:
    """The CPU as a chip: the best of a few runs of reading memory on all cores, and of XLA's matrix product."""
    peak = {name: _product(name) for name in ("float32", "bfloat16")}
    return Chip(
        NATIVE, f"this machine's CPU, {_threads()} threads", "cpu", "measured just now", _memory(), _bandwidth(), peak
    )


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bandwidth() -> float:
    """Bytes read per second by all threads together."""
    data = np.ones(_READ // 8, np.int64)
    parts = np.array_split(data, _threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        # A bitwise reduction is vectorised and costs nothing beside the memory; numpy lets go of the lock in it.
        return data.nbytes / _best(lambda: list(pool.map(np.bitwise_or.reduce, parts)))


def _product(dtype: str) -> float:
    """Operations per second in a large matrix product."""
    device = jax.devices("cpu")[0]
    matrix = jax.device_put(jnp.ones((_SIDE, _SIDE), dtype), device)
    product = jax.jit(jnp.dot).lower(matrix, matrix).compile()
    return 2 * _SIDE**3 / _best(lambda: product(matrix, matrix).block_until_ready())


def _best(run: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
