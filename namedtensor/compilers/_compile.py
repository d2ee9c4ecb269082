"""Programs compiled for targets that this machine does not have, several targets at a time."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

from namedtensor._errors import ModelError
from namedtensor.compilers._lowered import lowered
from namedtensor.compilers._plugins import plugin
from namedtensor.compilers._target import Target
from namedtensor.lowering._cost import Cost

if TYPE_CHECKING:
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry

# Prefixes of XLA's custom calls and fusions, and the library behind each: NVIDIA's and AMD's. XLA calls both by
# NVIDIA's names.
_LIBRARIES = {
    "__cublas$lt": ("cublasLt", "hipblaslt"),
    "__cublas$": ("cublas", "rocblas"),
    "__cudnn$": ("cudnn", "miopen"),
    "__cusparse$": ("cusparse", "hipsparse"),
    "__cusolver$": ("cusolver", "hipsolver"),
    "__cufft$": ("cufft", "hipfft"),
}
_CUSTOM_CALL = re.compile(r'custom_call_target="([^"]*)"')
# A part of the program that XLA hands over to cuDNN as a whole is a fusion of this kind.
_FUSION = re.compile(r'"kind":"(__cu[a-z]+\$fusion)"')
# The one operation that is left to a library without a custom call.
_FFT = re.compile(r"[\])}] fft\(")


@dataclass(frozen=True)
class Compiled:
    """One variant of a program, compiled for one target.

    - `serialized`: the executable, valid for the release of the compiler that made it; for CPUs an `.ntx` file.
    - `hlo`: the optimized program, empty for CPUs.
    - `cost`: arithmetic, and the fewest bytes that move.
    - `code_bytes` ... `temporary_bytes`: the compiler's plan of the chip's memory. `weight_bytes` and `state_bytes` are
      parts of the arguments.
    - `peak_compiler_bytes`: memory of the process that compiled it; 0 where that is this one.
    """

    variant: str
    target: Target
    serialized: bytes
    hlo: str
    cost: Cost
    seconds: float
    code_bytes: int
    weight_bytes: int
    state_bytes: int
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temporary_bytes: int
    peak_compiler_bytes: int

    @property
    def memory_bytes(self) -> int:
        """What the chip's memory must hold while this variant runs."""
        written = self.output_bytes - self.alias_bytes
        return max(self.code_bytes, 0) + self.argument_bytes + max(written, 0) + self.temporary_bytes

    @property
    def suffix(self) -> str:
        """How the executable's file is called."""
        return "ntx" if self.target.platform == "cpu" else "executable"

    @property
    def custom_calls(self) -> tuple[str, ...]:
        return tuple(sorted(set(_CUSTOM_CALL.findall(self.hlo))))

    @property
    def libraries(self) -> tuple[str, ...]:
        calls = {*self.custom_calls, *_FUSION.findall(self.hlo)}
        if self.target.platform in ("cuda", "rocm") and _FFT.search(self.hlo):
            calls.add("__cufft$")
        found = set()
        for call in calls:
            # The longest prefix that fits: cublasLt before cublas.
            fitting = [prefix for prefix in _LIBRARIES if call.startswith(prefix)]
            if fitting:
                nvidia, amd = _LIBRARIES[max(fitting, key=len)]
                found.add(amd if self.target.platform == "rocm" else nvidia)
        return tuple(sorted(found))


@dataclass(frozen=True)
class Progress:
    """How far something is: `done` of `total` variants or bytes of `what`, and `note`, what is at work now."""

    what: str
    done: int
    total: int
    note: str = ""


OnProgress = Callable[[Progress], None]


def compile_for(
    program: Program,
    targets: Sequence[Target],
    *,
    entry: str | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> dict[str, list[Compiled]]:
    """Every variant of `program` for every target, by the target's name.

    Targets are compiled side by side, as many at a time as there are cores and memory for: those for accelerators each
    in a process of its own, those for CPUs here. `on_progress` is called from several threads.

    Raises `ModelError` where a plugin cannot be had, or a program cannot be compiled or cannot fit into the chip.
    """
    with tempfile.TemporaryDirectory(prefix="namedtensor-") as temporary:
        sources = {
            platform: Sources(Path(temporary) / platform, lowered(program, platform, entry))
            for platform in dict.fromkeys(target.platform for target in targets)
        }
        for target in targets:
            sources[target.platform].check(target)
        running: list[subprocess.Popen[str]] = []

        def one(index: int, target: Target) -> list[Compiled]:
            work = Path(temporary) / f"target{index}"
            work.mkdir()
            source = sources[target.platform]
            results = _here(target, source) if target.platform == "cpu" else _there(target, source, work, running)
            total, found = len(source.sizes), list[Compiled]()
            names = [*source.sizes, ""]
            on_progress(Progress(target.name, 0, total, names[0]))
            for compiled in results:
                _fits(compiled)
                found.append(compiled)
                on_progress(Progress(target.name, len(found), total, names[len(found)]))
            return found

        # The largest first: nothing is left to run alone at the end.
        order = sorted(range(len(targets)), key=lambda index: -_WEIGHTS.get(targets[index].platform, 0))
        with ThreadPoolExecutor(max_workers=_at_a_time(len(targets))) as pool:
            futures = {index: pool.submit(one, index, targets[index]) for index in order}
            try:
                return {target.name: futures[index].result() for index, target in enumerate(targets)}
            except BaseException:
                for future in futures.values():
                    future.cancel()
                for process in running:
                    process.kill()
                raise


# How long platforms take to compile for, against each other.
_WEIGHTS = {"tpu": 3, "rocm": 2, "cuda": 2, "cpu": 1}
# What one compiler needs at most: a Llama's for TPU was seen to take 1.6 GB.
_COMPILER_BYTES = 2_000_000_000


def _at_a_time(targets: int) -> int:
    """How many compilers may run at a time on this machine."""
    try:
        text = Path("/proc/meminfo").read_text()
        memory = int(text.partition("MemAvailable:")[2].split()[0]) * 1024 // _COMPILER_BYTES
    except (OSError, IndexError, ValueError):
        memory = targets
    return max(1, min(targets, os.cpu_count() or 1, memory))


class Sources:
    """A program's variants as they were lowered for one platform, as files for those who compile them."""

    def __init__(self, directory: Path, variants: dict[str, LoweredEntry]) -> None:
        directory.mkdir()
        self.directory = directory
        self.costs = {name: variant.cost() for name, variant in variants.items()}
        self.sizes = {name: Sizes.of(variant) for name, variant in variants.items()}
        for name, variant in variants.items():
            # Another release of a compiler reads the portable form; on CPUs the very same one reads it again.
            module: Any = variant.stages.compiler_ir("stablehlo")
            here = variant.platform == "cpu"
            self.path(name).write_bytes(mlir.module_to_bytecode(module) if here else variant.bytecode())

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.mlirbc"

    def check(self, target: Target) -> None:
        """Raises `ModelError` where weights and state alone are more than the chip's memory."""
        for name, sizes in self.sizes.items():
            if target.chip is not None and sizes.weights + sizes.state > target.chip.memory_bytes:
                raise ModelError(_does_not_fit(target, name, sizes.weights + sizes.state, sizes.weights, sizes.state))


@dataclass(frozen=True)
class Sizes:
    """Bytes of a variant's arguments and results, by what they are."""

    weights: int
    state: int
    inputs: int
    results: int

    @classmethod
    def of(cls, variant: LoweredEntry) -> Sizes:
        weights, state, inputs = (_nbytes(group) for group in variant.traced.in_avals[0])
        return cls(weights, state, inputs, _nbytes(variant.traced.out_info))


def _nbytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * int(np.dtype(leaf.dtype).itemsize) for leaf in leaves)


def _here(target: Target, source: Sources) -> Iterator[Compiled]:
    """Compile for CPUs, in this process."""
    from namedtensor.export import cpu

    for name, sizes in source.sizes.items():
        began = time.perf_counter()
        # A module of its own: the same one may be compiled for another level at this moment.
        with mlir.make_ir_context():
            module = ir.Module.parse(source.path(name).read_bytes())
            made = cpu.build_module(module, name, target.level)
        yield Compiled(
            variant=name,
            target=target,
            serialized=made.data,
            hlo="",
            cost=source.costs[name],
            seconds=time.perf_counter() - began,
            code_bytes=made.code,
            weight_bytes=sizes.weights,
            state_bytes=sizes.state,
            argument_bytes=sizes.weights + sizes.state + sizes.inputs,
            output_bytes=sizes.results,
            alias_bytes=min(sizes.state, sizes.results),
            temporary_bytes=made.temporaries,
            peak_compiler_bytes=0,
        )


def _there(target: Target, source: Sources, work: Path, running: list[subprocess.Popen[str]]) -> Iterator[Compiled]:
    """Compile for an accelerator, in a process with its plugin."""
    for report in _work(target, source, work, running):
        name = report["name"]
        output = work / f"{name}.executable"
        yield Compiled(
            variant=name,
            target=target,
            serialized=output.read_bytes(),
            hlo=output.with_suffix(".hlo").read_text(),
            cost=source.costs[name],
            seconds=report["seconds"],
            code_bytes=report["code_bytes"],
            weight_bytes=source.sizes[name].weights,
            state_bytes=source.sizes[name].state,
            argument_bytes=report["argument_bytes"],
            output_bytes=report["output_bytes"],
            alias_bytes=report["alias_bytes"],
            temporary_bytes=report["temporary_bytes"],
            peak_compiler_bytes=report["peak_kilobytes"] * 1024,
        )


def _work(target: Target, source: Sources, work: Path, running: list[subprocess.Popen[str]]) -> Any:
    """Run the worker of one target, and yield its report of each variant as it comes."""
    found = plugin(target.platform)
    topology, options = target.topology()
    job = {
        "platform": target.platform,
        "library": str(found.library),
        # Not beside the plugin, in a cache that may be read-only: they are small, and made in no time.
        "stubs": str(work / "stubs"),
        "topology": topology,
        "options": options,
        "programs": [
            {"name": name, "bytecode": str(source.path(name)), "output": str(work / f"{name}.executable")}
            for name in source.sizes
        ],
    }
    description = work / "job.json"
    description.write_text(json.dumps(job))
    log = work / "log"
    # The worker must find this package where this process did, and XLA its libdevice where the plugin was unpacked.
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    if target.platform == "cuda":
        flags = f"{environment.get('XLA_FLAGS', '')} --xla_gpu_cuda_data_dir={found.root / 'nvidia' / 'cu13'}"
        environment["XLA_FLAGS"] = flags.strip()
    command = [sys.executable, "-m", "namedtensor.compilers._worker", str(description)]
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=work,
        )
    running.append(process)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line)
    if process.wait() != 0:
        raise ModelError(f"{target.name}: {_reason(process.returncode, log.read_text(errors='replace'))}")


def _reason(code: int, log: str) -> str:
    """Why a worker failed: what its last exception says, in a line, or the signal that ended it."""
    if code < 0:
        return f"the compiler was ended by {signal.Signals(-code).name}; with SIGKILL, memory ran out"
    lines = [line for line in log.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return lines[-1][:600] if lines else f"the compiler failed with exit code {code}: {log.strip()[-300:]}"


def _fits(compiled: Compiled) -> None:
    chip = compiled.target.chip
    if chip is not None and compiled.memory_bytes > chip.memory_bytes:
        parts = compiled.weight_bytes, compiled.state_bytes, compiled.temporary_bytes
        raise ModelError(_does_not_fit(compiled.target, compiled.variant, compiled.memory_bytes, *parts))


def _does_not_fit(target: Target, variant: str, needed: int, weights: int, state: int, temporary: int = 0) -> str:
    assert target.chip is not None
    temporaries = f", temporaries {temporary / 1e9:.1f} GB" if temporary else ""
    return (
        f"{target.name}: {variant} needs {needed / 1e9:.1f} GB of memory, and the chip has "
        f"{target.chip.memory_bytes / 1e9:.1f} GB\n"
        f"  weights {weights / 1e9:.1f} GB, state {state / 1e9:.1f} GB{temporaries}\n"
        "  fix  a smaller context or batch, a narrower dtype, or a larger chip"
    )
