"""Models with named axes: written once, checked before they run, lowered to StableHLO."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from namedtensor import nn, random
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
    "nn",
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

# What is used is imported when it is used: jax takes longer to import than the command line to answer `--help`.
_HOMES = {
    "_control": "cond scan while_loop",
    "_errors": "AxisError CheckpointError DTypeError InputError ModelError NamedTensorError",
    "_join": "concat stack where",
    "_module": "Module",
    "_tensor": "Tensor arange full one_hot ones spec wrap zeros",
    "checkpoint": "Checkpoint Loading load",
    "lowering": "Entry Executable Program Session entry",
    "porting": "Activations Comparison activations compare",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = ("checkpoint", "compilers", "lowering", "nn", "porting", "random", "targets", "tasks", "zoo")


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
