"""Chips that programs are meant for, one data file each, and this machine's own processor, measured.

name = "NVIDIA H100 SXM"
platform = "cuda"
source = "..."                    # where the numbers were published
memory_bytes = 80_000_000_000
memory_bandwidth = 3_350_000_000_000  # bytes per second
[peak]                            # operations per second, dense, by dtype
bfloat16 = 9.894e14
[compiler]                        # what the compiler must know; see namedtensor/compilers
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from namedtensor._errors import InputError, closest

# The processor of the machine that asks; it has no file, its rates are measured.
NATIVE = "cpu-native"
_FILES = Path(__file__).parent


@dataclass(frozen=True)
class Chip:
    """What one chip can do: `peak` in operations a second by dtype, memory in bytes and bytes a second."""

    key: str
    name: str
    platform: str
    source: str
    memory_bytes: int
    memory_bandwidth: float
    peak: dict[str, float]
    compiler: dict[str, Any] = field(default_factory=dict)

    def rate(self, dtype: Any) -> float | None:
        """Operations per second on this dtype, or None where no rate is known."""
        name = np.dtype(dtype).name
        return self.peak.get(name) or self.peak.get("float8" if name.startswith("float8") else name)


def names() -> list[str]:
    """Names of the chips, the native processor first."""
    return [NATIVE, *sorted(path.stem for path in _FILES.glob("*.toml"))]


def chip(name: str) -> Chip:
    """A chip by name; `cpu-native` is measured, which takes about a second. Raises `InputError` for another name."""
    if name == NATIVE:
        from namedtensor.targets._measure import measure

        return measure()
    if name not in names():
        guess = closest(name, names())
        hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(names())}"
        raise InputError(f"there is no chip {name!r}: {hint}")
    with (_FILES / f"{name}.toml").open("rb") as file:
        fields = tomllib.load(file)
    return Chip(name, **fields)
