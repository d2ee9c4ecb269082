"""Reference values of layers and functions; see tests/golden/README.md."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).parents[1] / "golden"


@functools.cache
def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(ROOT / path) as stored:
        return {name: stored[name] for name in stored.files}


@functools.cache
def cases(group: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((ROOT / "nn/cases.json").read_text())[group]
    return found


def case(group: str, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Parameters and arrays of one case."""
    stored = arrays(f"nn/{group}.npz")
    prefix = name + "."
    return cases(group)[name], {key.removeprefix(prefix): a for key, a in stored.items() if key.startswith(prefix)}


def as_is(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


MODES: dict[str, Callable[[Any], Any]] = {"eager": as_is, "jit": jax.jit}
