"""The native CPU device against jaxlib: `python -m benchmarks.native_cpu [MODEL=WEIGHTS[:VARIANT]] ...`.

Times one call of a program. Without arguments, `digits` with its own weights. `bert=DIRECTORY:embed.b8.s64` runs one
variant of a model of the zoo, and `bert=DIRECTORY` all of them, on weights that lie in a directory. Both sides get the
same weights and inputs:

- `native`: the program built for this machine's processor, run by `nt-cpu-run` in a process of its own.
- `jaxlib`: the program as `namedtensor run` compiles it.

They take turns, several times over. Prints the median time of a call of each, their ratio, and the largest difference
between their results.
"""

import argparse
import importlib
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import namedtensor as nt
from namedtensor.export.cpu import build, lower_entry
from namedtensor.lowering._lower import lower_variant

ROOT = Path(__file__).resolve().parent.parent
DIGITS = f"digits={ROOT / 'models' / 'digits' / 'digits.safetensors'}"


def runner() -> Path:
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--package", "nt-cpu", "--example", "nt-cpu-run"]
    subprocess.run(command, cwd=ROOT / "runner", check=True)
    return ROOT / "runner" / "target" / "release" / "examples" / "nt-cpu-run"


def fill(spec: Any, rng: np.random.Generator) -> Any:
    """Values for an input: normal numbers, or small whole ones."""
    if jax.numpy.issubdtype(spec.dtype, jax.numpy.floating):
        return rng.normal(size=spec.shape).astype(spec.dtype)
    return rng.integers(0, 2, spec.shape).astype(spec.dtype)


class Comparison:
    """One variant of a program, ready to run on both sides."""

    def __init__(self, program: nt.Program, weights: dict[str, Any], variant: Any, directory: Path) -> None:
        entry = lower_variant(program, variant, "cpu")
        rng = np.random.default_rng(0)
        (_, donated, inputs), _ = entry.stages.in_avals
        self.arguments = weights, *[jax.tree.map(lambda spec: fill(spec, rng), tree) for tree in (donated, inputs)]
        self.compiled = entry.stages.compile()
        self.directory = directory
        (directory / "program.ntx").write_bytes(build(lower_entry(program, variant), "native").data)
        for i, leaf in enumerate(jax.tree.leaves(self.arguments)):
            (directory / f"arg{i}").write_bytes(np.ascontiguousarray(leaf).tobytes())

    def native(self, binary: Path, calls: int) -> list[float]:
        command: list[str | Path] = [binary, self.directory / "program.ntx", self.directory, str(calls)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return [float(line) for line in done.stdout.split()][1:]

    def jaxlib(self, calls: int) -> list[float]:
        weights, donated, inputs = jax.tree.map(jax.numpy.asarray, self.arguments)
        times = []
        for _ in range(calls):
            state = jax.block_until_ready(jax.tree.map(jax.numpy.array, donated))
            began = time.perf_counter()
            self.results = jax.block_until_ready(self.compiled(weights, state, inputs))
            times.append(time.perf_counter() - began)
        return times[1:]

    def difference(self) -> float:
        """Largest difference between results of both sides."""
        largest = 0.0
        for i, wanted in enumerate(jax.tree.leaves(self.results)):
            found = np.frombuffer((self.directory / f"out{i}").read_bytes(), wanted.dtype).reshape(wanted.shape)
            gap = np.abs(found.astype(np.float64) - np.asarray(wanted).astype(np.float64))
            largest = max(largest, float(gap.max(initial=0)))
        return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=[DIGITS], metavar="MODEL=WEIGHTS[:VARIANT]")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each side gets")
    parser.add_argument("--calls", type=int, default=20, help="calls in a turn; the first is not counted")
    arguments = parser.parse_args()

    binary = runner()
    table = Table("program", "native, ms", "jaxlib, ms", "jaxlib / native", "largest difference")
    for asked in arguments.programs:
        name, _, source = asked.partition("=")
        weights_at, _, only = source.partition(":")
        program = importlib.import_module(f"namedtensor.models.{name}.model").program(nt.Checkpoint.open(weights_at))
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nt.load(program.model).result())]
        weights = dict(zip(program.weights(), leaves, strict=True))
        for variant in program.variants():
            if only and variant.name != only:
                continue
            with tempfile.TemporaryDirectory() as directory:
                comparison = Comparison(program, weights, variant, Path(directory))
                native, jaxlib = [], []
                for _ in range(arguments.rounds):
                    native += comparison.native(binary, arguments.calls)
                    jaxlib += comparison.jaxlib(arguments.calls)
                ours, theirs = statistics.median(native) * 1e3, statistics.median(jaxlib) * 1e3
                row = (f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.2f}", f"{comparison.difference():.1e}")
                table.add_row(f"{name} {variant.name}", *row)
    Console().print(table)


if __name__ == "__main__":
    main()
