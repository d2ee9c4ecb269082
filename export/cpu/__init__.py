"""Programs for the native CPU device: XLA:CPU's machine code, linked, with a plan that runs it without XLA."""

from namedtensor.export.cpu._compile import LEVELS
from namedtensor.export.cpu._ntx import CpuExecutable, build, build_module

__all__ = ["LEVELS", "CpuExecutable", "build", "build_module"]
