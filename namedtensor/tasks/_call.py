"""Tensors in, tensors out: what any program can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from namedtensor._base import Base
from namedtensor._errors import InputError, closest, describe, fail
from namedtensor._tensor import Tensor, wrap
from namedtensor.lowering._program import weight_name

if TYPE_CHECKING:
    from namedtensor.lowering import Program, Session, Variant

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Call:
    """Run one entry point on arrays; plain data.

    The task of every program that declares none. `entry` is the entry point to run when the caller names none; where
    it is None too, the program must have a single one.
    """

    entry: str | None = None

    def run(self, session: Session, inputs: Mapping[str, Any], *, entry: str | None = None) -> Outputs:
        """Run an entry point on `inputs`: arrays, numbers or nested lists, each in the axis order of its spec.

        Inputs that are trees are given by their leaves: `cache.k`. Numbers take the type of the input where that
        loses nothing but precision. Raises `InputError` where an input is missing, unknown, or does not fit.
        """
        variant, tensors = self.prepare(session.program, inputs, entry=entry)
        found = leaves(session.call(variant.entry, **tensors))
        known = list(dict.fromkeys(axis for spec in leaves(dict(variant.inputs)).values() for axis in spec.axes))
        return Outputs(variant.entry, {name: _ordered(tensor, known) for name, tensor in found.items()})

    def prepare(
        self, program: Program, inputs: Mapping[str, Any], *, entry: str | None = None
    ) -> tuple[Variant, dict[str, Any]]:
        """The variant that fits the inputs, and the inputs as tensors, in the trees that it takes.

        Needs no weights and compiles nothing. Raises as `run` does.
        """
        chosen = self.choose(program, entry)
        specs = leaves(dict(program.entries[chosen].inputs))
        for name in inputs:
            if name not in specs:
                guess = closest(name, specs)
                fail(
                    f"{chosen}: there is no input {name!r}",
                    found={"inputs": ", ".join(f"{k} {describe(v)}" for k, v in specs.items())},
                    fix=f"did you mean {guess!r}?" if guess else None,
                    kind=InputError,
                )
        missing = [name for name in specs if name not in inputs]
        if missing:
            fail(
                f"{chosen}: input {missing[0]!r} is missing" + (f", and {len(missing) - 1} more" * (len(missing) > 1)),
                found={"inputs": ", ".join(f"{k} {describe(v)}" for k, v in specs.items())},
                kind=InputError,
            )
        tensors = {name: _tensor(chosen, name, spec, inputs[name]) for name, spec in specs.items()}
        variants = program.variants(chosen)
        variant = _fitting(variants, tensors)
        treedef = jax.tree.structure(dict(variant.inputs), is_leaf=_is_tensor)
        return variant, jax.tree.unflatten(treedef, list(tensors.values()))

    def choose(self, program: Program, entry: str | None = None) -> str:
        """The entry point that a call runs. Raises `InputError` where that is open, or there is none of the name."""
        entry = entry or self.entry
        names = list(program.entries)
        if entry is None and len(names) == 1:
            return names[0]
        if entry not in names:
            guess = None if entry is None else closest(entry, names)
            fail(
                "the program has several entry points" if entry is None else f"there is no entry point {entry!r}",
                found={"entry points": ", ".join(names)},
                fix=f"did you mean {guess!r}?" if guess else "name one of them",
                kind=InputError,
            )
        return entry

    def to_json(self) -> dict[str, Any]:
        """The declaration, for a machine."""
        return {"task": "call", "entry": self.entry}


@dataclass(frozen=True, eq=False)
class Outputs:
    """What an entry point returned: its tensors by name, `logits` or `cache.k`; `output` where it is a single one.

    The order of their axes is fixed: those of the inputs first, as the inputs name them, then the others by name.
    """

    entry: str
    tensors: Mapping[str, Tensor]

    def arrays(self) -> dict[str, Array]:
        """The values by name, each in the order of its `axes`."""
        return {name: tensor.numpy(" ".join(tensor.axes)) for name, tensor in self.tensors.items()}

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        arrays = self.arrays()
        return {
            "entry": self.entry,
            "outputs": {
                name: {
                    "axes": list(tensor.axes),
                    "shape": list(arrays[name].shape),
                    "dtype": str(tensor.dtype),
                    "values": arrays[name].tolist(),
                }
                for name, tensor in self.tensors.items()
            },
        }


def leaves(tree: Any) -> dict[str, Tensor]:
    """The tensors of a tree by their dotted place in it; `output` for a tree that is one tensor."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_tensor)
    return {weight_name(path) or "output": leaf for path, leaf in flat}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Base)


def _ordered(tensor: Tensor, known: list[str]) -> Tensor:
    """The tensor with its axes in an order that does not depend on what the compiler found convenient."""
    axes = sorted(tensor.axes, key=lambda axis: (known.index(axis) if axis in known else len(known), axis))
    return wrap(tensor.data(" ".join(axes)), " ".join(axes)) if axes else tensor


def _fitting(variants: Sequence[Variant], tensors: Mapping[str, Tensor]) -> Variant:
    for variant in variants:
        if all(spec.sizes == tensors[name].sizes for name, spec in leaves(dict(variant.inputs)).items()):
            return variant
    expected = leaves(dict(variants[0].inputs))
    name = next((n for n, spec in expected.items() if spec.sizes != tensors[n].sizes), next(iter(tensors)))
    buckets = "; ".join(variant.name for variant in variants)
    fail(
        f"{variants[0].entry}: input {name!r} has other sizes than the entry point",
        found={"expected": expected[name], "found": tensors[name]}
        | ({"variants": buckets} if len(variants) > 1 else {}),
        kind=InputError,
    )


def _tensor(entry: str, name: str, spec: Tensor, value: Any) -> Tensor:
    """One input with its axes named and in the type of its spec."""
    if isinstance(value, Base):
        value = value.numpy(" ".join(spec.axes))
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind in "OSU":
        fail(f"{entry}: input {name!r} is not an array of numbers", found={"expected": describe(spec)}, kind=InputError)
    if array.ndim != len(spec.axes):
        fail(
            f"{entry}: input {name!r} has {array.ndim} axes, not {len(spec.axes)}",
            found={"expected": describe(spec), "found": f"shape {array.shape}, {array.dtype}"},
            kind=InputError,
        )
    return wrap(np.ascontiguousarray(_converted(entry, name, spec, array)).reshape(array.shape), " ".join(spec.axes))


def _converted(entry: str, name: str, spec: Tensor, array: Array) -> Array:
    wanted = spec.dtype
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "V" and array.dtype.names is None and array.dtype.itemsize == wanted.itemsize:
        return array.view(wanted)  # how numpy's files keep bfloat16 and the like
    inexact = jax.numpy.issubdtype(wanted, jax.numpy.inexact)
    if array.dtype.kind in "iu" and jax.numpy.issubdtype(wanted, jax.numpy.integer):
        narrowed = array.astype(wanted)
        if np.array_equal(narrowed, array):
            return narrowed
        problem = f"holds {array.min()} to {array.max()}, more than {wanted} can"
    elif inexact and (array.dtype.kind in "iu" or jax.numpy.issubdtype(array.dtype, jax.numpy.floating)):
        return array.astype(wanted)
    else:
        problem = f"holds {array.dtype} values, which do not become {wanted}"
    fail(f"{entry}: input {name!r} {problem}", found={"expected": describe(spec)}, kind=InputError)
