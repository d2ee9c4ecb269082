"""From a model's entry points to StableHLO, and to an executable for a device of this machine."""

from namedtensor.lowering._execute import Executable, Session
from namedtensor.lowering._lower import Lowered, LoweredEntry
from namedtensor.lowering._program import Entry, Program, Variant, entry

__all__ = ["Entry", "Executable", "Lowered", "LoweredEntry", "Program", "Session", "Variant", "entry"]
