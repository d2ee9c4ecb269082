"""Executables for a device of this machine, and a session: an executable with its weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import jax

from namedtensor._base import Base
from namedtensor._elementwise import is_scalar
from namedtensor._errors import InputError, ModelError, closest, describe, fail
from namedtensor._tensor import Tensor
from namedtensor.lowering._cache import cached_on_disk
from namedtensor.lowering._lower import lower_variant
from namedtensor.lowering._progress import Bar

if TYPE_CHECKING:
    from namedtensor.lowering._program import Program, Variant


class Executable:
    """A program compiled for one device. `call` runs an entry point on weights and inputs."""

    def __init__(self, program: Program, device: jax.Device) -> None:
        self.program = program
        self.device = device
        self.compile_seconds = 0.0
        self._variants = {variant.name: variant for variant in program.variants()}
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()

    def prepare(self, only: Sequence[str] | None = None, *, progress: bool = False) -> None:
        """Compile variants now: all of them, or those `only` names (`decode`, `prefill` for its every bucket).

        What is not compiled yet when it is called is compiled then.
        """
        wanted = [v for v in self._variants.values() if only is None or v.name in only or v.entry in only]
        for name in only or ():
            if not any(name in (v.name, v.entry) for v in wanted):
                self._unknown(name, self._variants)
        with Bar(len(wanted), progress) as bar:
            for variant in wanted:
                bar.at(variant.name)
                self._executable(variant)

    def _executable(self, variant: Variant) -> Any:
        found = self._compiled.get(variant.name)
        if found is not None:
            return found
        with self._lock:
            if variant.name not in self._compiled:
                began = time.perf_counter()
                with cached_on_disk(), jax.default_device(self.device):
                    lowered = lower_variant(self.program, variant, _platform(self.device))
                    self._compiled[variant.name] = lowered.stages.compile()
                self.compile_seconds += time.perf_counter() - began
            return self._compiled[variant.name]

    def bucket(self, entry: str, axis: str, size: int) -> int:
        """The smallest compiled size of `axis` that holds `size`. Raises `InputError` where none does."""
        self._known(entry)
        sizes = self.program.entries[entry].buckets.get(axis, ())
        for candidate in sizes:
            if size <= candidate:
                return candidate
        fail(
            f"{entry}: {axis}={size} is more than the largest size that was compiled",
            found={"sizes": ", ".join(map(str, sizes)) or "no buckets"},
            fix="split the input, or compile a larger bucket",
            kind=InputError,
        )

    def call(self, entry: str, weights: Mapping[str, Any], /, **inputs: Any) -> Any:
        """Run one entry point. `weights` come by name, as `Program.weights` gives them; donated inputs are consumed.

        Inputs are tensors in any axis order, or numbers where the input is a scalar. The sizes of bucketed axes choose
        the variant. Raises `InputError` where an input is missing, unknown, or differs in axes, sizes or type.
        """
        self._known(entry)
        specs = self.program.entries[entry].inputs
        for name in inputs:
            if name not in specs:
                guess = closest(name, specs)
                fail(
                    f"{entry}: there is no input {name!r}",
                    found={"inputs": ", ".join(specs)},
                    fix=f"did you mean {guess!r}?" if guess else None,
                    kind=InputError,
                )
        missing = [name for name in specs if name not in inputs]
        if missing:
            fail(f"{entry}: input {missing[0]!r} is missing", found={"inputs": ", ".join(specs)}, kind=InputError)
        variant = self._choose(entry, inputs)
        arrays = {name: _fit(entry, name, variant.inputs[name], value) for name, value in inputs.items()}
        donate = self.program.entries[entry].donate
        return self._executable(variant)(
            weights,
            {name: value for name, value in arrays.items() if name in donate},
            {name: value for name, value in arrays.items() if name not in donate},
        )

    def memory(self, variant: str) -> Any:
        """The compiler's account of a variant's memory, in bytes, as jax gives it."""
        return self._executable(self._named(variant)).memory_analysis()

    def text(self, variant: str) -> str:
        """The optimized HLO of a variant."""
        return str(self._executable(self._named(variant)).as_text())

    def _named(self, variant: str) -> Variant:
        if variant not in self._variants:
            self._unknown(variant, self._variants)
        return self._variants[variant]

    def _known(self, entry: str) -> None:
        if entry not in self.program.entries:
            self._unknown(entry, self.program.entries)

    def _unknown(self, name: str, known: Mapping[str, Any]) -> NoReturn:
        guess = closest(name, known)
        fail(
            f"there is no entry point {name!r}",
            found={"entry points": ", ".join(known)},
            fix=f"did you mean {guess!r}?" if guess else None,
            kind=ModelError,
        )

    def _choose(self, entry: str, inputs: Mapping[str, Any]) -> Variant:
        candidates = [variant for variant in self._variants.values() if variant.entry == entry]
        if len(candidates) == 1:
            return candidates[0]
        buckets = self.program.entries[entry].buckets
        given: dict[str, int] = {}
        for leaf in jax.tree.leaves(dict(inputs), is_leaf=_is_tensor):
            if isinstance(leaf, Base):
                given.update((axis, size) for axis, size in leaf.sizes.items() if axis in buckets)
        for variant in candidates:
            if all(given.get(axis) == size for axis, size in variant.sizes):
                return variant
        asked = ", ".join(f"{axis}={size}" for axis, size in given.items())
        fail(
            f"{entry}: no variant was compiled for {asked or 'these inputs'}",
            found={"variants": ", ".join(variant.name for variant in candidates)},
            fix="pad the input to one of these sizes: bucket(entry, axis, size) gives the smallest that fits",
            kind=InputError,
        )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Base)


def _fit(entry: str, name: str, spec: Any, value: Any) -> Any:
    """The arrays of one input, in the spec's axis order."""
    if isinstance(spec, Base):
        return _fit_tensor(entry, name, spec, value)
    specs, expected = jax.tree.flatten(spec, is_leaf=_is_tensor)
    values, found = jax.tree.flatten(value, is_leaf=_is_tensor)
    if str(expected) != str(found):
        fail(
            f"{entry}: input {name!r} is another tree",
            found={"expected": str(expected), "found": str(found)},
            kind=InputError,
        )
    fitted = [_fit_tensor(entry, name, s, v) for s, v in zip(specs, values, strict=True)]
    return jax.tree.unflatten(expected, fitted)


def _fit_tensor(entry: str, name: str, spec: Base, value: Any) -> Tensor:
    if is_scalar(value) and not spec.axes:
        return Tensor._of(jax.numpy.asarray(value, spec.dtype), ())
    if not isinstance(value, Base):
        fail(
            f"{entry}: input {name!r} has no axis names",
            found={"expected": spec, "found": value},
            fix=f'nt.wrap(array, "{" ".join(spec.axes)}")',
            kind=InputError,
        )
    if value.axes != spec.axes:
        if set(value.axes) != set(spec.axes):
            _differs(entry, name, spec, value, "axes")
        value = Tensor._of(value._transposed(spec.axes), spec.axes)
    if value._array.shape != spec._array.shape:
        _differs(entry, name, spec, value, "sizes")
    if value._array.dtype != spec._array.dtype:
        _differs(entry, name, spec, value, "type")
    assert isinstance(value, Tensor)
    return value


def _differs(entry: str, name: str, spec: Base, value: Base, what: str) -> None:
    fail(
        f"{entry}: input {name!r} has other {what} than the entry point",
        found={"expected": describe(spec), "found": describe(value)},
        kind=InputError,
    )


class Session:
    """A compiled program and its loaded weights, ready to run."""

    def __init__(self, executable: Executable, weights: dict[str, Any]) -> None:
        self.executable = executable
        self.program = executable.program
        self._weights = weights

    def call(self, entry: str, /, **inputs: Any) -> Any:
        """Run one entry point; see `Executable.call`."""
        return self.executable.call(entry, self._weights, **inputs)

    def bucket(self, entry: str, axis: str, size: int) -> int:
        """The smallest compiled size of `axis` that holds `size`."""
        return self.executable.bucket(entry, axis, size)


def start(program: Program, device: jax.Device | None, *, only: Sequence[str] | None, progress: bool) -> Session:
    """Load weights in the background, compile meanwhile, and join both."""
    from namedtensor.checkpoint import load

    device = device or jax.devices()[0]
    executable = Executable(program, device)
    loading = load(program.model, device=device, progress=progress)
    try:
        executable.prepare(only, progress=progress)
        model = loading.result()
    except BaseException:
        loading.cancel()
        raise
    arrays = [jax.device_put(leaf, device) for leaf in jax.tree.leaves(model)]
    return Session(executable, dict(zip(program.weights(), arrays, strict=True)))


def compile_program(
    program: Program, device: jax.Device | None, *, only: Sequence[str] | None, progress: bool
) -> Executable:
    """Compile variants for `device`."""
    executable = Executable(program, device or jax.devices()[0])
    executable.prepare(only, progress=progress)
    return executable


def _platform(device: jax.Device) -> str:
    if device.platform != "gpu":
        return str(device.platform)
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"
