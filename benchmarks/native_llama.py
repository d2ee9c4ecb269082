"""Llama on the native CPU device, 1.1 B parameters in bf16; a part of `benchmarks/native_cpu.py`.

Rate of decoding after a prompt of 128 tokens, and of running that prompt, on random weights:

- `native`: the program built for this machine's processor, run by `nt-cpu-run`.
- `llama.cpp`: by an interpreter that has llama-cpp-python and gguf, given with `--llama-cpp`; left out without one.
- `namedtensor`: the program as `namedtensor run` runs it, for what the native device adds or costs.

Each is a process of its own, and they take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import namedtensor as nt
from benchmarks import weights
from benchmarks.decode import PROMPT
from benchmarks.shapes import LLAMA_1B as SHAPE
from namedtensor.export.cpu import build
from namedtensor.lowering._lower import lower_variant
from namedtensor.models.llama import model as llama

DECODE, PREFILL = "decode", f"prefill.s{PROMPT}"
PREPARE = "import sys; from benchmarks import native_llama; native_llama.prepare(*sys.argv[1:])"
# Where in a sequence each variant is called.
INPUTS = {
    "token": np.array([7], np.int32),
    "position": np.array([PROMPT], np.int32),
    "tokens": np.arange(1, PROMPT + 1, dtype=np.int32)[None],
    "start": np.zeros(1, np.int32),
    "length": np.array([PROMPT], np.int32),
}


def options(parser: argparse.ArgumentParser) -> None:
    """Adds those that `compare` reads."""
    parser.add_argument("--llama", action="store_true", help="run the Llama of 1.1 B parameters, too")
    parser.add_argument(
        "--llama-cpp", metavar="PYTHON", help="an interpreter with llama-cpp-python and gguf; runs the Llama"
    )
    parser.add_argument("--weights", type=Path, metavar="DIRECTORY", help="where the Llama's weights are kept, 9 GB")
    parser.add_argument("--steps", type=int, default=24, help="tokens that a turn decodes")
    parser.add_argument("--llama-rounds", type=int, default=5, help="turns that each peer gets with the Llama")


def prepare(checkpoint: str, target: str) -> None:
    """Writes both variants of the program to the directory `target`, and for each a directory with its arguments."""
    directory = Path(target)
    program = llama.program(nt.Checkpoint.open(checkpoint), context=SHAPE.context)
    loaded = jax.tree.leaves(nt.load(program.model).result())
    # Arguments are sorted by the weights' names.
    tensors = jax.tree.leaves(dict(zip(program.weights(), loaded, strict=True)))
    shared = directory / "weights"
    shared.mkdir(parents=True)
    for i, tensor in enumerate(tensors):
        (shared / str(i)).write_bytes(np.asarray(tensor).tobytes())
    for variant in program.variants():
        if variant.name not in (DECODE, PREFILL):
            continue
        _, donated, inputs = lower_variant(program, variant, "cpu").stages.in_avals[0]
        state = jax.tree.map(lambda spec: np.zeros(spec.shape, spec.dtype), donated)
        rest = jax.tree.leaves([state, {name: INPUTS[name] for name in inputs}])
        arguments = directory / variant.name
        arguments.mkdir()
        for i in range(len(tensors)):
            (arguments / f"arg{i}").symlink_to(shared / str(i))
        for i, value in enumerate(rest, len(tensors)):
            (arguments / f"arg{i}").write_bytes(value.tobytes())
        (directory / f"{variant.name}.ntx").write_bytes(build(lower_variant(program, variant, "cpu"), "native").data)


def native(binary: Path, directory: Path, steps: int) -> dict[str, float]:
    def seconds(variant: str, calls: int) -> float:
        command: list[str | Path] = [binary, directory / f"{variant}.ntx", directory / variant, str(calls + 1)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return statistics.median(float(line) for line in done.stdout.split()[1:])

    return {"decode": 1 / seconds(DECODE, steps), "prefill": PROMPT / seconds(PREFILL, 3)}


def compare(binary: Path, asked: argparse.Namespace) -> None:
    """Measures and prints; `asked` holds the options."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = asked.weights or Path(temporary)
        if not (directory / "model.safetensors").exists():
            weights.write(directory, SHAPE)
        # What the compiler makes may change from run to run, though the weights do not.
        with tempfile.TemporaryDirectory(dir=directory) as made:
            # In a process of its own, which gives its memory back.
            command = [sys.executable, "-c", PREPARE, str(directory), f"{made}/native"]
            subprocess.run(command, check=True)
            _report(_measure(binary, asked, directory, Path(made) / "native"))


def _measure(binary: Path, asked: argparse.Namespace, directory: Path, made: Path) -> dict[str, list[dict[str, float]]]:
    peers = Path(__file__).parent / "peers"
    decode = [sys.executable, "-m", "benchmarks.decode", "--peer", "namedtensor", "--weights", str(directory)]
    commands = {"namedtensor": [*decode, "--steps", str(asked.steps)]}
    if asked.llama_cpp:
        script = str(peers / "llama_cpp_llama.py")
        commands["llama.cpp"] = [asked.llama_cpp, script, str(directory), str(PROMPT), str(asked.steps)]
    found: dict[str, list[dict[str, float]]] = {"native": [], **{peer: [] for peer in commands}}
    # The interpreter of another environment must not find this one's packages.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for _ in range(asked.llama_rounds):
        for peer, command in commands.items():
            found["native"].append(native(binary, made, asked.steps))
            alone: dict[str, Any] = {"env": environment} if peer == "llama.cpp" else {}
            output = subprocess.run(command, check=True, capture_output=True, text=True, **alone).stdout
            found[peer].append(json.loads(output.splitlines()[-1]))
    return found


def _report(found: dict[str, list[dict[str, float]]]) -> None:
    table = Table(title="Llama, 1.1 B parameters, bf16: tokens a second, medians of turns")
    for column in ("", "decode", "native / this", "prefill of 128", "native / this"):
        table.add_column(column, justify="left" if not column else "right")
    turns = found["native"]
    others = [peer for peer in found if peer != "native"]
    for peer, rates in found.items():
        # The native turn just before each of the peer's.
        beside = turns[others.index(peer) :: len(others)] if peer in others else turns
        cells = []
        for key in ("decode", "prefill"):
            ratios = [ours[key] / theirs[key] for ours, theirs in zip(beside, rates, strict=True)]
            cells += [f"{statistics.median(rate[key] for rate in rates):.2f}", f"{statistics.median(ratios):.2f}"]
        table.add_row(peer, *cells)
    Console().print(table)
