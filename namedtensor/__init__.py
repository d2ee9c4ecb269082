"""Models with named axes: written once, checked before they run, lowered to StableHLO."""

from namedtensor import random
from namedtensor._control import cond, scan, while_loop
from namedtensor._errors import AxisError, CheckpointError, DTypeError, InputError, ModelError, NamedTensorError
from namedtensor._join import concat, stack, where
from namedtensor._module import Module
from namedtensor._tensor import Tensor, arange, full, one_hot, ones, spec, wrap, zeros
from namedtensor.checkpoint import Checkpoint, Loading, load
from namedtensor.lowering import Entry, Executable, Program, Session, entry
from namedtensor.porting import Activations, Comparison, activations, compare

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "AxisError",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "DTypeError",
    "Entry",
    "Executable",
    "InputError",
    "Loading",
    "ModelError",
    "Module",
    "NamedTensorError",
    "Program",
    "Session",
    "Tensor",
    "activations",
    "arange",
    "compare",
    "concat",
    "cond",
    "entry",
    "full",
    "load",
    "one_hot",
    "ones",
    "random",
    "scan",
    "spec",
    "stack",
    "where",
    "while_loop",
    "wrap",
    "zeros",
]
