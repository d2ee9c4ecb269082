"""Programs as they are lowered to be compiled ahead of time: alike, whoever asks for it."""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from jax._src import source_info_util

from namedtensor import _kernels

if TYPE_CHECKING:
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import Lowered, LoweredEntry


def lowered(program: Program, platform: str, entry: str | None = None) -> dict[str, LoweredEntry]:
    """Every variant of a program, or of one entry point, for a platform."""
    return _apart(lambda: program.lower(platform, entry), contextlib.nullcontext())


def portable(program: Program) -> dict[str, LoweredEntry]:
    """Every variant, without the project's own kernels: StableHLO that any compiler of it can read."""
    return _apart(lambda: program.lower("cpu"), _kernels.nowhere())


def _apart(lower: Callable[[], Lowered], within: AbstractContextManager[None]) -> dict[str, LoweredEntry]:
    """Lower in a thread of its own: what no line of the model asks for is located at its caller's, and would differ
    with whoever calls."""
    for module in (threading, concurrent.futures.thread):
        source_info_util.register_exclusion(str(module.__file__))

    def run() -> dict[str, LoweredEntry]:
        with within:
            return dict(lower())

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(run).result()
