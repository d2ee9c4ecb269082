"""Compiling for accelerators from a machine that has none: targets, compiler plugins, and what comes out."""

from namedtensor.compilers._compile import Compiled, compile_for
from namedtensor.compilers._target import Target, known, target

__all__ = ["Compiled", "Target", "compile_for", "known", "target"]
