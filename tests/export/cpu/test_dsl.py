"""Every operation of the DSL on the native CPU device: all of a kind in one program, operands in random orders."""

import importlib
import random
from typing import Any

import jax
import pytest

import namedtensor as nt
from tests.export.cpu.native import assert_as_jax
from tests.strategies import Case


class Free(nt.Module):
    """A model without weights."""


def tensors_only(result: Any) -> list[nt.Tensor]:
    leaves = jax.tree.leaves(result, is_leaf=lambda leaf: isinstance(leaf, nt.Tensor))
    return [leaf for leaf in leaves if isinstance(leaf, nt.Tensor)]


@pytest.mark.parametrize("kind", ["elementwise", "dot", "index", "join", "reduce", "shape"])
def test_operations_give_what_jax_gives(kind: str) -> None:
    chance = random.Random(kind)
    module = importlib.import_module(f"tests.test_{kind}")
    cases: list[Case] = [case for name in ("UNARY", "BINARY", "CASES") for case in getattr(module, name, [])]
    assert cases
    inputs: dict[str, nt.Tensor] = {}
    operands: list[list[str]] = []
    for i, case in enumerate(cases):
        orders = [chance.sample(operand.axes.split(), len(operand.axes.split())) for operand in case.operands]
        named = {f"c{i}_{j}": tensor for j, tensor in enumerate(case.tensors(orders))}
        operands.append(list(named))
        inputs.update(named)

    def main(model: Free, **given: nt.Tensor) -> dict[str, list[nt.Tensor]]:
        return {
            f"c{i}": tensors_only(case.run(*[given[name] for name in names]))
            for i, (case, names) in enumerate(zip(cases, operands, strict=True))
        }

    specs: dict[str, Any] = {
        name: nt.spec(" ".join(tensor.axes), tensor.dtype, **tensor.sizes) for name, tensor in inputs.items()
    }
    program = nt.Program(Free(), {"main": nt.entry(main, **specs)})
    arrays = {name: tensor.numpy(" ".join(tensor.axes)) for name, tensor in inputs.items()}
    assert_as_jax(program, "main", arrays, "x86-64-v3")
