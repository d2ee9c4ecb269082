"""A model as a tree of modules with named axes, repeated layers folded into one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.text import Text
from rich.tree import Tree

from namedtensor._base import Base
from namedtensor._module import Module, is_child
from namedtensor.cli._output import count, nbytes

if TYPE_CHECKING:
    from namedtensor.lowering import Program


# Of a module that holds this few tensors and nothing else, one line says it all: weight and bias, a norm's statistics.
_ON_ONE_LINE = 4


@dataclass
class Totals:
    """Parameters and bytes, of weights counted once however many modules share them."""

    parameters: int = 0
    bytes: int = 0
    seen: set[Any] = field(default_factory=set)

    def add(self, tensor: Base) -> None:
        key = identity(tensor)
        if key not in self.seen:
            self.seen.add(key)
            self.parameters += tensor.count
            self.bytes += size_in_bytes(tensor)


def identity(tensor: Base) -> Any:
    """Equal for tensors that hold the same weight."""
    entry = getattr(tensor.array, "entry", None)
    return id(tensor.array) if entry is None else (id(entry), tensor.dtype)


def size_in_bytes(tensor: Base) -> int:
    return tensor.count * tensor.dtype.itemsize


def totals(value: Any) -> Totals:
    """Of all tensors in a tree."""
    found = Totals()
    for leaf in jax.tree.leaves(value, is_leaf=lambda v: isinstance(v, Base)):
        if isinstance(leaf, Base):
            found.add(leaf)
    return found


def main_dtype(program: Program) -> np.dtype[Any]:
    """The type that most bytes of the weights are in."""
    sizes: dict[np.dtype[Any], int] = {}
    for leaf in program.weights().values():
        dtype = np.dtype(leaf.dtype)
        sizes[dtype] = sizes.get(dtype, 0) + math.prod(leaf.shape) * dtype.itemsize
    return max(sizes, key=lambda dtype: sizes[dtype], default=np.dtype("float32"))


def model_tree(name: str, program: Program) -> Tree:
    """What to print of a model."""
    whole = totals(program.model)
    label = Text.assemble((name, "bold"), f"  {type(program.model).__name__}  ", (_amount(whole), "cyan"))
    tree = Tree(label, guide_style="dim")
    seen: set[Any] = set()
    for part in program.model._fields:
        _grow(tree, part, getattr(program.model, part), seen)
    return tree


def _grow(parent: Tree, name: str, value: Any, seen: set[Any]) -> None:
    if isinstance(value, Base):
        size = nbytes(size_in_bytes(value))
        parent.add(
            Text.assemble(f"{name}  ", (_axes(value), "green"), f"  {value.dtype}  {size}", _shared([value], seen))
        )
    elif isinstance(value, Module):
        _module(parent, name, value, 1, seen)
    elif isinstance(value, dict) and is_child(value):
        branch = parent.add(Text.assemble(name, "  ", (_amount(totals(value)), "cyan")))
        for key, item in value.items():
            _grow(branch, str(key), item, seen)
    elif isinstance(value, (list, tuple)) and is_child(value):
        for first, last, item in _runs(value):
            if first == last:
                _grow(parent, f"{name}.{first}", item, seen)
                continue
            times = last - first + 1
            if isinstance(item, Module):
                _module(parent, f"{name}.{first}-{last}", item, times, seen)
            else:
                _grow(parent, f"{name}.{first}-{last}  {times} ×", item, seen)


def _module(parent: Tree, name: str, module: Module, times: int, seen: set[Any]) -> None:
    label = Text.assemble((name, "bold"), f"  {times} × " if times > 1 else "  ", type(module).__name__)
    parts = [field_name for field_name in module._fields if is_child(getattr(module, field_name))]
    tensors = [getattr(module, part) for part in parts]
    if 0 < len(parts) <= _ON_ONE_LINE and all(isinstance(t, Base) and t.dtype == tensors[0].dtype for t in tensors):
        for part, tensor in zip(parts, tensors, strict=True):
            label.append(f"  {part} ")
            label.append(_axes(tensor), style="green")
        label.append(f"  {tensors[0].dtype}  {nbytes(sum(map(size_in_bytes, tensors)))}")
        parent.add(label.append(_shared(tensors, seen)))
        return
    if parts:
        label.append(f"  {_amount(totals(module))}{' each' if times > 1 else ''}", style="cyan")
    branch = parent.add(label)
    for part in parts:
        _grow(branch, part, getattr(module, part), seen)


def _shared(tensors: list[Base], seen: set[Any]) -> Text:
    """A remark where all of these stand elsewhere in the tree too, which counts them once."""
    keys = {identity(tensor) for tensor in tensors}
    known = keys <= seen
    seen |= keys
    return Text("  shared" if known else "", style="dim")


def _runs(items: Any) -> list[tuple[int, int, Any]]:
    """(first, last, one of them) of neighbours that are alike in structure, sizes and types."""
    runs = []
    for _, group in itertools.groupby(enumerate(items), key=lambda pair: _likeness(pair[1])):
        members = list(group)
        runs.append((members[0][0], members[-1][0], members[0][1]))
    return runs


def _likeness(value: Any) -> Any:
    found, treedef = jax.tree.flatten(value)
    return treedef, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in found if hasattr(leaf, "shape"))


def _axes(tensor: Base) -> str:
    return "(" + ", ".join(f"{name}={size}" for name, size in tensor.sizes.items()) + ")"


def _amount(of: Totals) -> str:
    return f"{count(of.parameters)} parameters, {nbytes(of.bytes)}" if of.parameters else "no parameters"


def weights_json(program: Program) -> list[dict[str, Any]]:
    """Every weight of a model with its name in the model and in the checkpoint, for a machine."""
    flat, _ = jax.tree_util.tree_flatten_with_path(program.model, is_leaf=lambda v: isinstance(v, Base))
    rows = []
    for name, (_, tensor) in zip(program.weights(), flat, strict=True):
        assert isinstance(tensor, Base)
        rows.append(
            {
                "name": name,
                "axes": list(tensor.axes),
                "shape": [int(size) for size in tensor.array.shape],
                "dtype": str(tensor.dtype),
                "bytes": size_in_bytes(tensor),
                "stored_as": getattr(tensor.array, "name", None),
            }
        )
    return rows
