"""`Program`: named entry points over the weights of one model, in every shape that they are compiled for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax

from namedtensor._axes import names
from namedtensor._base import Base
from namedtensor._errors import ModelError, closest, describe, fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor

if TYPE_CHECKING:
    from namedtensor.lowering._execute import Executable, Session
    from namedtensor.lowering._lower import Lowered


@dataclass(frozen=True)
class Entry:
    """A function of the model and named inputs, with the shapes to compile it for. Made by `nt.entry`."""

    fn: Callable[..., Any]
    inputs: Mapping[str, Any]
    donate: tuple[str, ...] = ()
    buckets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One entry point at one choice of bucket sizes: what becomes one executable."""

    entry: str
    sizes: tuple[tuple[str, int], ...]
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`decode`, or `prefill.s64` where a bucket was chosen."""
        return ".".join([self.entry, *(f"{axis}{size}" for axis, size in self.sizes)])


def entry(
    fn: Callable[..., Any],
    *,
    donate: str = "",
    buckets: Mapping[str, tuple[int, ...]] | None = None,
    **inputs: Any,
) -> Entry:
    """An entry point: `fn(model, **inputs)`, returning tensors in any tree, preferably a dict with a name for each.

    A result that has the axes of an input is stored in that input's order. Any other has the axes of the inputs first,
    in the order in which they appear, and then its own by name.

    - `inputs`: for each keyword of `fn` a tree of `nt.spec` tensors (names, sizes, types; no data).
    - `donate`: names of the inputs that the call consumes and whose memory its results reuse, such as a KV cache.
    - `buckets`: sizes to compile for: `{"s": (16, 64, 256)}` makes one executable for each size of axis `s`.
    """
    donated = names(donate, "donate")
    for name in donated:
        if name not in inputs:
            fail(
                f"entry: {name!r} is donated but is no input",
                asked=f'donate="{donate}"',
                found={"inputs": ", ".join(inputs) or "none"},
                kind=ModelError,
            )
    leaves = jax.tree.leaves(inputs, is_leaf=_is_tensor)
    for leaf in leaves:
        if not isinstance(leaf, Base):
            fail(
                "entry: an input is not a spec with named axes",
                found={"input": leaf},
                fix='nt.spec("b s", "int32", b=1, s=16); constants belong into the model or the function',
                kind=ModelError,
            )
    sizes = {axis: tuple(sorted(set(values))) for axis, values in (buckets or {}).items()}
    for axis, values in sizes.items():
        if not any(axis in leaf.axes for leaf in leaves):
            fail(f"entry: no input has the axis {axis!r} of the buckets", fix=_axes_of(leaves), kind=ModelError)
        if not values or any(not isinstance(v, int) or v < 1 for v in values):
            fail(f"entry: buckets of {axis!r} must be whole numbers from 1", asked=f"{values}", kind=ModelError)
    return Entry(fn, inputs, donated, sizes)


class Program:
    """A model and its entry points, ready to be lowered, compiled and run.

    - `model`: a `Module`; its weights may be loaded, or known by shape only (from a checkpoint's header).
    - `entries`: by name, what `nt.entry` returns.
    - `task`: what the program does for a user, such as `tasks.Classify`; None for tensors in, tensors out.
    """

    def __init__(self, model: Module, entries: Mapping[str, Entry], *, task: Any = None, name: str = "model") -> None:
        if not isinstance(model, Module):
            fail("Program: the model must be an nt.Module", found={"model": model}, kind=ModelError)
        if not entries:
            fail("Program: at least one entry point is needed", fix='{"main": nt.entry(...)}', kind=ModelError)
        for key, value in entries.items():
            if not isinstance(value, Entry):
                fail(
                    f"Program: {key!r} is not an entry point", found={key: value}, fix="nt.entry(...)", kind=ModelError
                )
            if not key.isidentifier():
                fail(f"Program: {key!r} cannot name an entry point: letters, digits and _ only", kind=ModelError)
        self.model = model
        self.entries = dict(entries)
        self.task = task
        self.name = name

    def variants(self, entry: str | None = None) -> list[Variant]:
        """Every entry point at every choice of its buckets, or those of one entry point."""
        if entry is not None and entry not in self.entries:
            fail(
                f"{self.name} has no entry point {entry!r}",
                found={"entry points": ", ".join(self.entries)},
                fix=f"did you mean {closest(entry, self.entries)!r}?" if closest(entry, self.entries) else None,
                kind=ModelError,
            )
        found = []
        for name, value in self.entries.items():
            if entry is not None and name != entry:
                continue
            for choice in itertools.product(*value.buckets.values()):
                sizes = tuple(zip(value.buckets, choice, strict=True))
                found.append(Variant(name, sizes, {k: _resized(v, dict(sizes)) for k, v in value.inputs.items()}))
        return found

    def weights(self) -> dict[str, Any]:
        """The model's arrays (or what stands for them) by name, such as `layers.0.attention.q`."""
        flat, _ = jax.tree_util.tree_flatten_with_path(self.model)
        return {weight_name(path): leaf for path, leaf in flat}

    def lower(self, platform: str = "cpu", entry: str | None = None) -> Lowered:
        """StableHLO of every variant for one platform: `cpu`, `cuda`, `rocm` or `tpu`. Needs shapes only."""
        from namedtensor.lowering._lower import lower

        return lower(self, platform, self.variants(entry))

    def compile(
        self, device: jax.Device | None = None, *, only: Sequence[str] | None = None, progress: bool = False
    ) -> Executable:
        """Compile every variant for a device of this machine; results are kept in a disk cache.

        - `only`: names of variants or entry points to compile now; the others are compiled when they are first called.
        - `progress`: show a bar on stderr where that is a terminal.
        """
        from namedtensor.lowering._execute import compile_program

        return compile_program(self, device, only=only, progress=progress)

    def start(
        self, device: jax.Device | None = None, *, only: Sequence[str] | None = None, progress: bool = False
    ) -> Session:
        """Compile while the weights load, and return what runs both together. Arguments as for `compile`."""
        from namedtensor.lowering._execute import start

        return start(self, device, only=only, progress=progress)

    def __repr__(self) -> str:
        lines = [f"Program {self.name}"]
        for variant in self.variants():
            inputs = ", ".join(f"{k}: {_show(v)}" for k, v in variant.inputs.items())
            lines.append(f"  {variant.name}({inputs})")
        return "\n".join(lines)


def weight_name(path: Any) -> str:
    """A leaf's place in the model as dotted names."""
    parts = []
    for key in path:
        for attribute in ("name", "idx", "key"):
            if hasattr(key, attribute):
                parts.append(str(getattr(key, attribute)))
                break
    return ".".join(parts)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Base)


def _resized(tree: Any, sizes: Mapping[str, int]) -> Any:
    def resize(tensor: Base) -> Tensor:
        shape = tuple(sizes.get(name, size) for name, size in tensor.sizes.items())
        return Tensor._of(jax.ShapeDtypeStruct(shape, tensor.dtype), tensor.axes)

    return jax.tree.map(resize, tree, is_leaf=_is_tensor)


def _axes_of(leaves: list[Any]) -> str:
    return "axes of the inputs: " + ", ".join(sorted({name for leaf in leaves for name in leaf.axes}))


def _show(tree: Any) -> str:
    leaves = jax.tree.leaves(tree, is_leaf=_is_tensor)
    return describe(leaves[0]) if len(leaves) == 1 else f"{len(leaves)} tensors"
