"""What an executable takes and returns, in its own order, by names that a caller knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from namedtensor.tasks._call import leaves

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry


def arguments(program: Program, entry: LoweredEntry) -> list[dict[str, Any]]:
    """Weights by name, then donated inputs, then the others: the order in which the lowered program has them."""
    donate = program.entries[entry.variant.entry].donate
    inputs = entry.variant.inputs
    groups = (
        ("weight", sorted(leaves(program.model).items())),
        ("state", leaves({name: tree for name, tree in inputs.items() if name in donate}).items()),
        ("input", leaves({name: tree for name, tree in inputs.items() if name not in donate}).items()),
    )
    return [{"kind": kind, **_described(name, tensor)} for kind, group in groups for name, tensor in group]


def results(entry: LoweredEntry) -> list[dict[str, Any]]:
    """Results with the argument, if any, whose memory each takes."""
    aliases = _aliases(entry)
    return [
        {**_described(name, tensor), "aliases": aliases.get(index)}
        for index, (name, tensor) in enumerate(leaves(entry.traced.out_info).items())
    ]


def _described(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "axes": list(tensor.axes),
        "dtype": str(tensor.dtype),
        "shape": [int(size) for size in tensor.sizes.values()],
    }


def _aliases(entry: LoweredEntry) -> dict[int, int]:
    """Argument by result, as the lowered program declares it."""
    module: Any = entry.stages.compiler_ir("stablehlo")
    (main,) = (op for op in module.body.operations if getattr(getattr(op, "name", None), "value", None) == "main")
    if "arg_attrs" not in main.attributes:
        return {}
    found = {}
    for index, attributes in enumerate(main.attributes["arg_attrs"]):
        if "tf.aliasing_output" in attributes:
            found[int(attributes["tf.aliasing_output"].value)] = index
    return found
