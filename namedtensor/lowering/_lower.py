"""A program's variants as StableHLO, in text and in portable bytecode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.stages
from jax._src import config
from jax._src.interpreters import mlir

from namedtensor import _scope
from namedtensor._base import Base
from namedtensor._errors import ModelError, fail
from namedtensor._tensor import Tensor
from namedtensor.lowering._cost import Cost, cost_of

if TYPE_CHECKING:
    from namedtensor.lowering._program import Entry, Program, Variant

# Names by which jax knows the platforms that a program is lowered for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class LoweredEntry:
    """One variant lowered for one platform. Its arguments are all weights by name, then donated and other inputs."""

    variant: Variant
    platform: str
    traced: jax.stages.Traced
    stages: jax.stages.Lowered
    out_tree: Any

    @property
    def name(self) -> str:
        return self.variant.name

    def text(self, *, locations: bool = True) -> str:
        """StableHLO as text; with `locations`, each operation says which module and line it comes from."""
        return self.stages.as_text(debug_info=locations)

    def bytecode(self) -> bytes:
        """StableHLO as a portable artifact: readable by releases up to five years newer and twelve weeks older."""
        from jaxlib import _jax
        from jaxlib.mlir.dialects import stablehlo

        requirement = stablehlo.StablehloCompatibilityRequirement.WEEK_12
        version = stablehlo.get_version_from_compatibility_requirement(requirement)
        module = self.stages.compiler_ir("stablehlo")
        assert module is not None
        # jaxlib's own serializer rather than StableHLO's: it first rewrites CHLO, which jax emits and nobody promises
        # to read later, into StableHLO.
        return bytes(_jax.mlir.serialize_portable_artifact(mlir.module_to_bytecode(module), version, False))

    def cost(self) -> Cost:
        """FLOPs and the fewest bytes that must move."""
        return cost_of(self.traced)


class Lowered(Mapping[str, LoweredEntry]):
    """The lowered variants of a program, by name (`decode`, `prefill.s64`)."""

    def __init__(self, entries: dict[str, LoweredEntry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> LoweredEntry:
        if name not in self._entries:
            fail(f"there is no variant {name!r}", found={"variants": ", ".join(self._entries)}, kind=ModelError)
        return self._entries[name]

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def as_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)


def lower_variant(program: Program, variant: Variant, platform: str) -> LoweredEntry:
    """Trace and lower one variant."""
    if platform not in PLATFORMS:
        fail(f"{platform!r} is not a platform", fix=f"one of {', '.join(PLATFORMS)}", kind=ModelError)
    weights = {name: as_spec(leaf) for name, leaf in program.weights().items()}
    donate = program.entries[variant.entry].donate
    donated = jax.tree.map(as_spec, {k: v for k, v in variant.inputs.items() if k in donate})
    inputs = jax.tree.map(as_spec, {k: v for k, v in variant.inputs.items() if k not in donate})
    main = _main(program, variant.entry)
    main.__name__ = main.__qualname__ = variant.name.replace(".", "_")
    # keep_unused: the arguments of an entry point are its contract, whether or not this variant reads all of them.
    traced = jax.jit(main, donate_argnums=1, keep_unused=True).trace(weights, donated, inputs)
    with _locations():
        stages = traced.lower(lowering_platforms=(platform,))
    return LoweredEntry(variant, platform, traced, stages, jax.tree.structure(traced.out_info))


@contextlib.contextmanager
def _locations() -> Iterator[None]:
    """Locations as the model's own line, `llama/model.py:41`: the same on every machine, whoever lowers."""
    with (
        config.include_full_tracebacks_in_locations(False),
        config.hlo_source_file_canonicalization_regex(r".*/(?=[^/]+/[^/]+$)"),
    ):
        yield


def _main(program: Program, entry: str) -> Callable[..., Any]:
    """The entry point as a function of arrays: weights by name, donated inputs, other inputs."""
    fn = program.entries[entry].fn
    names = list(program.weights())
    treedef = jax.tree.structure(program.model)

    def main(weights: dict[str, Any], donated: dict[str, Any], inputs: dict[str, Any]) -> Any:
        model = jax.tree.unflatten(treedef, [weights[name] for name in names])
        with _scope.naming(model):
            return _in_order(fn(model, **donated, **inputs), program.entries[entry])

    return main


def _in_order(results: Any, entry: Entry) -> Any:
    """Results with their axes in an order that hangs on the entry point alone.

    Inside a program the order in which a tensor is stored may follow from sizes, so it may differ between buckets. What
    comes out must not: a result with the axes of an input is stored like that input, as state must be; any other has
    the axes of the inputs first, in order of appearance, and then its own by name.
    """
    specs = jax.tree.leaves(dict(entry.inputs), is_leaf=lambda leaf: isinstance(leaf, Base))
    known = list(dict.fromkeys(name for spec in specs for name in spec.axes))
    stored = {frozenset(spec.axes): spec.axes for spec in reversed(specs)}

    def place(tensor: Any) -> Any:
        if not isinstance(tensor, Base):
            return tensor
        axes = frozenset(tensor.axes)
        appearing = [name for name in known if name in axes]
        order = stored.get(axes) or (*appearing, *sorted(axes.difference(known)))
        return Tensor._of(tensor._transposed(order), order)

    return jax.tree.map(place, results, is_leaf=lambda leaf: isinstance(leaf, Base))


def lower(program: Program, platform: str, variants: list[Variant]) -> Lowered:
    return Lowered({variant.name: lower_variant(program, variant, platform) for variant in variants})
