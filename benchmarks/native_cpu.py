"""The native CPU device against its peers: `python -m benchmarks.native_cpu [--minilm DIRECTORY] [--llama-cpp PYTHON]`.

First against jaxlib, one call of a program: `digits` with its own weights, MobileNetV2 1.0 at 224 with random ones,
and MiniLM (all-MiniLM-L6-v2) for 1 and for 32 texts of 16, 64 and 128 tokens, where `make demo` has fetched
it or `--minilm` says where it is. `bert=DIRECTORY:embed.b8.s64` as an argument runs one variant of a model
of the zoo instead, and `bert=DIRECTORY` all of them, on weights that lie in a directory. Both sides get the same
weights and inputs:

- `native`: the program built for this machine's processor, run by `nt-cpu-run` in a process of its own.
- `jaxlib`: the program with its own contractions, none of ours.

Then, with `--llama` or `--llama-cpp PYTHON`, a Llama of 1.1 B parameters in bf16 against llama.cpp; see
`native_llama.py`.

Peers take turns, several times over. A time is the median over all calls; a ratio that of the medians of neighbouring
turns, in the middle over all rounds, so that what else the machine does weighs on both sides of it alike. Also prints
the largest difference between the results of both sides.
"""

import argparse
import importlib
import itertools
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

import namedtensor as nt
from benchmarks import native_llama
from namedtensor import _kernels
from namedtensor.export.cpu import build
from namedtensor.lowering._lower import lower_variant
from scripts import fetch_minilm
from tests.golden import seeded

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [f"embed.b{texts}.s{tokens}" for texts in (1, 32) for tokens in (16, 64, 128)]


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
        with _kernels.nowhere():
            entry = lower_variant(program, variant, "cpu")
        rng = np.random.default_rng(0)
        (_, donated, inputs), _ = entry.stages.in_avals
        self.arguments = weights, *[jax.tree.map(lambda spec: fill(spec, rng), tree) for tree in (donated, inputs)]
        self.compiled = entry.stages.compile()
        self.directory = directory
        (directory / "program.ntx").write_bytes(build(lower_variant(program, variant, "cpu"), "native").data)
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


class Asked(NamedTuple):
    """Which variants of which program; all of them where none is named."""

    model: str
    source: Path
    variants: list[str]
    options: dict[str, Any]


def given(argument: str) -> Asked:
    """`MODEL=WEIGHTS[:VARIANT]`"""
    model, _, source = argument.partition("=")
    directory, _, variant = source.partition(":")
    return Asked(model, Path(directory), [variant] if variant else [], {})


def usual(minilm: Path | None, temporary: Path) -> list[Asked]:
    """What is measured unless something is asked for."""
    case = ROOT / "tests" / "golden" / "mobilenet" / "timm-100"
    shapes = json.loads((case / "parameters.json").read_text())
    save_file(
        {name: seeded.convolutional(name, shape) for name, shape in shapes.items()}, temporary / "model.safetensors"
    )
    shutil.copy(case / "config.json", temporary)
    asked = [
        Asked("digits", ROOT / "models" / "digits" / "digits.safetensors", [], {}),
        Asked("mobilenet", temporary, ["classify.b1"], {}),
    ]
    if minilm is None and fetch_minilm.present():
        minilm = fetch_minilm.fetch()
    return asked if minilm is None else [*asked, Asked("bert", minilm, TEXTS, {"batches": (1, 32)})]


def compare(asked: Asked, binary: Path, rounds: int, calls: int, table: Table) -> None:
    module = importlib.import_module(f"namedtensor.models.{asked.model}.model")
    program = module.program(nt.Checkpoint.open(asked.source), **asked.options)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nt.load(program.model).result())]
    weights = dict(zip(program.weights(), leaves, strict=True))
    for variant in program.variants():
        if asked.variants and variant.name not in asked.variants:
            continue
        with tempfile.TemporaryDirectory() as directory:
            comparison = Comparison(program, weights, variant, Path(directory))
            native, jaxlib = [], []
            for _ in range(rounds):
                native.append(comparison.native(binary, calls))
                jaxlib.append(comparison.jaxlib(calls))
            medians = [statistics.median(itertools.chain(*turns)) * 1e3 for turns in (native, jaxlib)]
            pairs = zip(native, jaxlib, strict=True)
            ratio = statistics.median(statistics.median(theirs) / statistics.median(ours) for ours, theirs in pairs)
            cells = [*(f"{median:.3f}" for median in medians), f"{ratio:.2f}", f"{comparison.difference():.1e}"]
            table.add_row(f"{asked.model} {variant.name}", *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", type=given, metavar="MODEL=WEIGHTS[:VARIANT]")
    parser.add_argument("--minilm", type=Path, metavar="DIRECTORY", help="all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each side gets")
    parser.add_argument("--calls", type=int, default=20, help="calls in a turn; the first is not counted")
    native_llama.options(parser)
    arguments = parser.parse_args()

    binary = runner()
    table = Table(title="One call: medians; difference is the largest between results")
    for column in ("program", "native, ms", "jaxlib, ms", "jaxlib / native", "difference"):
        table.add_column(column, justify="left" if column == "program" else "right", no_wrap=True)
    with tempfile.TemporaryDirectory() as temporary:
        for asked in arguments.programs or usual(arguments.minilm, Path(temporary)):
            compare(asked, binary, arguments.rounds, arguments.calls, table)
    Console().print(table)
    if arguments.llama or arguments.llama_cpp:
        native_llama.compare(binary, arguments)


if __name__ == "__main__":
    main()
