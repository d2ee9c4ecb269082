"""A program's executables without the rest of an archive: compiled now, to be packed later, or only reported on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from namedtensor.export.archive._executables import save_accelerator, save_cpu

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry


@dataclass(frozen=True)
class CpuVariant:
    """One variant of a program, compiled for an instruction level of the CPU (`target` is `cpu:x86-64-v3`)."""

    variant: str
    target: str
    data: bytes
    temporary_bytes: int
    seconds: float


def compile_cpu(
    lowered: Mapping[str, LoweredEntry], levels: Sequence[str], on_compiled: Callable[[CpuVariant], None]
) -> dict[str, list[CpuVariant]]:
    """Variants that were lowered for CPU, for every instruction level. Raises `ModelError` where one cannot be."""
    from namedtensor.export import cpu

    found: dict[str, list[CpuVariant]] = {}
    for level in levels:
        found[level] = []
        for name, entry in lowered.items():
            began = time.monotonic()
            made = cpu.build(entry, level)
            seconds = time.monotonic() - began
            found[level].append(CpuVariant(name, f"cpu:{level}", made.data, made.temporaries, seconds))
            on_compiled(found[level][-1])
    return found


def save(
    root: Path,
    program: Program,
    lowered: Mapping[str, LoweredEntry],
    cpu: Mapping[str, Sequence[CpuVariant]],
    chips: Mapping[str, Sequence[Compiled]],
) -> None:
    """Write what was compiled, all variants of each target, for `archive.build(..., compiled=[root])`."""
    for level, variants in cpu.items():
        save_cpu(root, level, lowered, {one.variant: one.data for one in variants})
    for compiled in chips.values():
        save_accelerator(root, compiled[0].target, program.lower(compiled[0].target.platform), compiled)
