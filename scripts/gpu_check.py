"""What only a machine with an NVIDIA GPU can show: executables compiled ahead of time run there, and say the same.

    python -m scripts.gpu_check prepare DIRECTORY [--target cuda:h200]    anywhere
    python -m scripts.gpu_check run DIRECTORY                             beside the GPU, with jax and its CUDA plugin

`prepare` compiles digits and two small Llamas for the chip, without one, and builds archives without plugins. `run`
needs no network: it loads each executable into jax's client, runs it, compares with jax on the CPU, and times it beside
the same program compiled there. Then it runs the archives' own programs with jax's plugin, beside the CPU
(gpu_archives.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import namedtensor as nt
from namedtensor import zoo
from scripts import gpu_archives
from scripts.gpu_archives import Refused

ROOT = Path(__file__).parents[1]
# Name, weights' source and options; the Llama is a random one of the tests, with two layers. Shakespeare's decode step
# is the benchmark: a whole small model, a token at a time.
PROGRAMS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "digits": (None, {}),
    "llama": (str(ROOT / "tests" / "golden" / "llama" / "llama31-gqa"), {"dtype": "float32"}),
    "shakespeare": (None, {}),
}
# Largest difference allowed, relative to the largest value: GPUs multiply f32 in TF32 where XLA finds that good enough.
TOLERANCE = 5e-3
REPEATS = 50


def programs() -> dict[str, nt.Program]:
    found = {}
    for name, (weights, options) in PROGRAMS.items():
        found[name] = zoo.find(name).program(weights, options)
    return found


def arguments(program: nt.Program, lowered: Any) -> list[np.ndarray]:
    """The program's own weights, and small numbers for everything else: the same ones at every call."""
    weights = nt.load(program.weights()).result()
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]
    random = np.random.default_rng(0)
    for spec in jax.tree.leaves(lowered.traced.in_avals)[len(leaves) :]:
        if np.issubdtype(spec.dtype, np.integer):
            leaves.append(random.integers(0, 4, spec.shape).astype(spec.dtype))
        else:
            leaves.append(random.random(spec.shape).astype(spec.dtype))
    return leaves


def prepare(directory: Path, target: str) -> None:
    from namedtensor import compilers

    directory.mkdir(parents=True, exist_ok=True)
    for name, program in programs().items():
        for compiled in compilers.compile_for(program, [compilers.target(target)])[target]:
            (directory / f"{name}.{compiled.variant}.executable").write_bytes(compiled.serialized)
            print(f"{name} {compiled.variant}: {len(compiled.serialized)} bytes for {target}")
    made = {"target": target, "jax": jax.__version__, "archives": gpu_archives.prepare(directory, target)}
    (directory / "check.json").write_text(json.dumps(made))


def gpu() -> jax.Device:
    try:
        return jax.devices("cuda")[0]
    except RuntimeError as error:
        raise Refused(f"there is no NVIDIA GPU that jax can use here: {str(error).splitlines()[0]}") from error


def read(directory: Path) -> dict[str, Any]:
    """What `prepare` left there."""
    try:
        made: dict[str, Any] = json.loads((directory / "check.json").read_text())
    except OSError as error:
        raise Refused(f"{directory} holds nothing to check ({error.strerror}): `prepare` makes it") from error
    if made["jax"] != jax.__version__:
        raise Refused(
            f"the executables were made by jax {made['jax']}, and here is {jax.__version__}: prepare them anew"
        )
    return made


def run(directory: Path, device: jax.Device) -> bool:
    """Checks every executable of `directory` on `device`; whether all agree."""
    made = read(directory)
    print(f"{device.device_kind}, executables for {made['target']}")
    agree = True
    for name, program in programs().items():
        on_device = program.lower("cpu" if device.platform == "cpu" else "cuda")
        # What jax compiles is for the default device, whatever platform it was lowered for.
        with jax.default_device(jax.devices("cpu")[0]):
            references = program.lower("cpu")
        for variant, reference in references.items():
            leaves = arguments(program, reference)
            serialized = (directory / f"{name}.{variant}.executable").read_bytes()
            agree &= check(f"{name} {variant}", serialized, device, leaves, reference, on_device[variant])
    return agree


def check(
    label: str, serialized: bytes, device: jax.Device, leaves: list[np.ndarray], reference: Any, lowered: Any
) -> bool:
    from jaxlib import _jax

    began = time.perf_counter()
    executable = device.client.deserialize_executable(serialized, _jax.DeviceList((device,)), None)
    loaded = time.perf_counter() - began

    def ahead(arrays: list[jax.Array]) -> list[jax.Array]:
        return [shards[0] for shards in executable.execute_sharded(arrays).disassemble_into_single_device_arrays()]

    began = time.perf_counter()
    there = lowered.stages.compile()
    compiled = time.perf_counter() - began
    structure = jax.tree.structure(lowered.stages.args_info[0])

    def here(arrays: list[jax.Array]) -> list[jax.Array]:
        return jax.tree.leaves(there(*jax.tree.unflatten(structure, arrays)))

    cpu = jax.devices("cpu")[0]
    on_cpu = [jax.device_put(leaf, cpu) for leaf in leaves]
    with jax.default_device(cpu):
        expected = jax.tree.leaves(reference.stages.compile()(*jax.tree.unflatten(structure, on_cpu)))
    found = ahead([jax.device_put(leaf, device) for leaf in leaves])
    worst = max(difference(ours, wanted) for ours, wanted in zip(found, expected, strict=True))
    times = [seconds(call, leaves, device) * 1e6 for call in (ahead, here)]
    verdict = "equal" if worst <= TOLERANCE else "DIFFERENT"
    print(
        f"{label}: {verdict}, {worst:.1e} from jax on the CPU; "
        f"loaded in {loaded:.2f} s (compiled here in {compiled:.2f} s); "
        f"a call {times[0]:.0f} µs (compiled here {times[1]:.0f} µs)"
    )
    return worst <= TOLERANCE


def difference(found: Any, expected: Any) -> float:
    """Largest, relative to the largest expected value; whole numbers must be equal."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.inexact):
        return 0.0 if (found == expected).all() else float("inf")
    distance = float(np.abs(found.astype(np.float64) - expected).max(initial=0))
    scale = float(np.abs(expected).max(initial=0)) or 1.0
    # Not a number is not equal.
    return distance / scale if np.isfinite(distance) else float("inf")


def seconds(call: Callable[[list[jax.Array]], list[jax.Array]], leaves: list[np.ndarray], device: jax.Device) -> float:
    """Median of one call; its arguments are put there before, since a donated one is gone afterwards."""
    times = []
    for _ in range(REPEATS):
        arrays = jax.block_until_ready([jax.device_put(leaf, device) for leaf in leaves])
        began = time.perf_counter()
        jax.block_until_ready(call(arrays))
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def run_archives(directory: Path, device: jax.Device, output: Path) -> bool:
    """Checks every archive of `directory` with jax's own plugin; whether all agree."""
    made = read(directory)
    plugin, libraries = gpu_archives.installed()
    rows = gpu_archives.run(directory, made["archives"], made["target"], TOLERANCE, plugin=plugin, libraries=libraries)
    gpu_archives.show(rows, {"device": device.device_kind, "target": made["target"], "jax": made["jax"]}, output)
    return all(row.agrees for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("prepare", "run"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--target", default="cuda:h200", help="for prepare (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="for run: where what archives did is written (DIRECTORY/found.json)")
    options = parser.parse_args()
    try:
        if options.step == "prepare":
            prepare(options.directory, options.target)
            return 0
        # jax would take most of the GPU's memory at once, and leave the archives' programs too little.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        device = gpu()
        agree = run(options.directory, device)
        agree &= run_archives(options.directory, device, options.json or options.directory / "found.json")
        return 0 if agree else 1
    except (Refused, nt.NamedTensorError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
