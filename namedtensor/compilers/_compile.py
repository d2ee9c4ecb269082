"""Programs compiled for targets that this machine does not have, several targets at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namedtensor._errors import ModelError
from namedtensor.compilers._plugins import plugin
from namedtensor.compilers._target import Target
from namedtensor.lowering._cost import Cost

if TYPE_CHECKING:
    from namedtensor.lowering import Program

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

    - `serialized`: the executable, valid for the release of the plugin that made it.
    - `code_bytes` ... `temporary_bytes`: the compiler's plan of the chip's memory. Weights and state are arguments.
    - `custom_calls`: what the optimized program calls that is no code of its own; `libraries`: the vendor's libraries
      that it needs for them.
    - `cost`: arithmetic, and the fewest bytes that move.
    """

    variant: str
    target: Target
    serialized: bytes
    hlo: str
    cost: Cost
    seconds: float
    code_bytes: int
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


def compile_for(
    program: Program,
    targets: Sequence[Target],
    *,
    entry: str | None = None,
    on_compiled: Callable[[Compiled], None] | None = None,
) -> dict[str, list[Compiled]]:
    """Every variant of `program` for every target, by the target's name.

    Targets are compiled side by side, each in a process of its own, as many at a time as there are cores.
    `on_compiled` is called as each variant is done, from several threads.

    Raises `ModelError` where a plugin cannot be had, or a program cannot be compiled or cannot fit into the chip.
    """
    with tempfile.TemporaryDirectory(prefix="namedtensor-") as temporary:
        directory = Path(temporary)
        lowered = {}
        for platform in dict.fromkeys(target.platform for target in targets):
            lowered[platform] = program.lower(platform, entry)
            for name, variant in lowered[platform].items():
                path = directory / platform / f"{name}.mlirbc"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(variant.bytecode())
        costs = {
            (platform, name): variant.cost() for platform, found in lowered.items() for name, variant in found.items()
        }
        running: list[subprocess.Popen[str]] = []

        def one(index: int, target: Target) -> list[Compiled]:
            work = directory / f"target{index}"
            work.mkdir()
            bytecode = directory / target.platform
            names = list(lowered[target.platform])
            return [
                _result(target, report, work, costs[target.platform, report["name"]], on_compiled)
                for report in _work(target, names, bytecode, work, running)
            ]

        with ThreadPoolExecutor(max_workers=max(1, min(len(targets), os.cpu_count() or 1))) as pool:
            futures = [pool.submit(one, index, target) for index, target in enumerate(targets)]
            try:
                return {target.name: future.result() for target, future in zip(targets, futures, strict=True)}
            except BaseException:
                for future in futures:
                    future.cancel()
                for process in running:
                    process.kill()
                raise


def _work(target: Target, names: list[str], bytecode: Path, work: Path, running: list[subprocess.Popen[str]]) -> Any:
    """Run the worker of one target, and yield its report of each variant as it comes."""
    found = plugin(target.platform)
    topology, options = target.topology()
    job = {
        "platform": target.platform,
        "library": str(found.library),
        "stubs": str(found.root / "stubs"),
        "topology": topology,
        "options": options,
        "programs": [
            {"name": name, "bytecode": str(bytecode / f"{name}.mlirbc"), "output": str(work / f"{name}.executable")}
            for name in names
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


def _result(
    target: Target, report: dict[str, Any], work: Path, cost: Cost, on_compiled: Callable[[Compiled], None] | None
) -> Compiled:
    output = work / f"{report['name']}.executable"
    compiled = Compiled(
        variant=report["name"],
        target=target,
        serialized=output.read_bytes(),
        hlo=output.with_suffix(".hlo").read_text(),
        cost=cost,
        seconds=report["seconds"],
        code_bytes=report["code_bytes"],
        argument_bytes=report["argument_bytes"],
        output_bytes=report["output_bytes"],
        alias_bytes=report["alias_bytes"],
        temporary_bytes=report["temporary_bytes"],
        peak_compiler_bytes=report["peak_kilobytes"] * 1024,
    )
    if compiled.memory_bytes > target.chip.memory_bytes:
        raise ModelError(
            f"{target.name}: {compiled.variant} needs {compiled.memory_bytes / 1e9:.1f} GB of memory, and the chip has "
            f"{target.chip.memory_bytes / 1e9:.1f} GB\n"
            f"  weights, state and inputs {compiled.argument_bytes / 1e9:.1f} GB, temporaries "
            f"{compiled.temporary_bytes / 1e9:.1f} GB\n"
            "  fix  a smaller context or batch, a narrower dtype, or a larger chip"
        )
    if on_compiled is not None:
        on_compiled(compiled)
    return compiled
