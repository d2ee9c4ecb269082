"""Programs on the native CPU device, for comparison with jax."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor.export.cpu import CpuExecutable, build
from namedtensor.lowering._lower import LoweredEntry, lower_variant

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def runner() -> Path:
    """The program that runs a .ntx file, unoptimized, so with every check of arithmetic; `cargo test` builds it too."""
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo to build the native device with")
    command = ["cargo", "build", "--quiet", "--locked", "--package", "nt-cpu", "--example", "nt-cpu-run"]
    subprocess.run(command, cwd=ROOT / "runner", check=True, timeout=600)
    return ROOT / "runner" / "target" / "debug" / "examples" / "nt-cpu-run"


def call(executable: CpuExecutable, arguments: list[Any], results: list[Any]) -> list[np.ndarray[Any, Any]]:
    """What the executable makes of arguments in the lowered program's order, in the shapes and types of `results`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "program.ntx").write_bytes(executable.data)
        for i, argument in enumerate(arguments):
            (directory / f"arg{i}").write_bytes(np.ascontiguousarray(argument).tobytes())
        command = [runner(), directory / "program.ntx", directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return [
            np.frombuffer((directory / f"out{i}").read_bytes(), result.dtype).reshape(result.shape)
            for i, result in enumerate(results)
        ]


def lowered(program: nt.Program, variant: str) -> LoweredEntry:
    (found,) = [v for v in program.variants() if v.name == variant]
    return lower_variant(program, found, "cpu")


def assert_as_jax(
    program: nt.Program, variant: str, inputs: Any, level: str = "x86-64-v2", tolerance: float = 1e-5
) -> CpuExecutable:
    """The native device gives what jax gives. `inputs`: arrays by the names of the entry's inputs, as trees of them."""
    entry = lowered(program, variant)
    executable = build(entry, level)
    plain = lower_variant(program, entry.variant, "cpu").stages.compile()
    model = nt.load(program.model).result()
    weights = dict(zip(program.weights(), jax.tree.leaves(model), strict=True))
    donate = program.entries[entry.variant.entry].donate
    donated = {name: value for name, value in inputs.items() if name in donate}
    others = {name: value for name, value in inputs.items() if name not in donate}
    arguments = [np.asarray(leaf) for leaf in jax.tree.leaves((weights, donated, others))]
    specs = jax.tree.leaves(entry.stages.in_avals)
    shaped = [argument.reshape(spec.shape).astype(spec.dtype) for argument, spec in zip(arguments, specs, strict=True)]
    (tree, _) = jax.tree.unflatten(jax.tree.structure(entry.stages.in_avals), [jax.numpy.array(a) for a in shaped])
    wanted = [np.asarray(leaf) for leaf in jax.tree.leaves(plain(*tree))]
    found = call(executable, shaped, wanted)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, tolerance)
    return executable


def assert_close(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], tolerance: float) -> None:
    if not jax.numpy.issubdtype(wanted.dtype, jax.numpy.floating):
        np.testing.assert_array_equal(found, wanted)
        return
    # Sums of the same products in another order: a half type is the same or its last bit differs, and the larger
    # numbers that made up a small one set its error.
    step = float(jax.numpy.finfo(wanted.dtype).eps)
    limit = max(tolerance, step if wanted.dtype.itemsize < 4 else 0)
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    largest = np.abs(wanted, where=np.isfinite(wanted), out=np.zeros_like(wanted)).max(initial=1)
    np.testing.assert_allclose(found, wanted, rtol=limit, atol=limit * largest)
