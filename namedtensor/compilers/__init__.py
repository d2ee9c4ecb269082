"""Compiling for accelerators from a machine that has none: targets, compiler plugins, and what comes out."""

from namedtensor.compilers._compile import Compiled, OnProgress, Progress, compile_for
from namedtensor.compilers._lowered import lowered, portable
from namedtensor.compilers._target import Target, known, target

__all__ = [
    "Compiled",
    "OnProgress",
    "Progress",
    "Target",
    "compile_for",
    "known",
    "lowered",
    "portable",
    "target",
]
