"""Compiling for accelerators that are not here, where their compilers are in the cache or may be fetched.

The compilers are half a gigabyte, so a run fetches them only where `NAMEDTENSOR_FETCH_COMPILERS=1` says so, as
continuous integration does.
"""

import os
from pathlib import Path
from typing import Any

import pytest

import namedtensor as nt
from namedtensor import compilers, zoo
from namedtensor.compilers import _plugins

pytestmark = pytest.mark.slow


def available(platform: str) -> None:
    if not _plugins.present(platform) and os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip(f"the {platform} compiler is not in the cache; NAMEDTENSOR_FETCH_COMPILERS=1 fetches it")


def digits() -> nt.Program:
    return zoo.find("digits").program()


@pytest.mark.parametrize("name", ["cuda:h100", "cuda:l4", "rocm:mi300x", "rocm:mi250x", "tpu:v5e-1", "tpu:v4-1"])
def test_digits_compile_for_a_chip_that_is_not_here(name: str) -> None:
    target = compilers.target(name)
    available(target.platform)
    (compiled,) = compilers.compile_for(digits(), [target])[name]
    assert compiled.variant == "classify"
    assert len(compiled.serialized) > 5_000
    assert "ENTRY" in compiled.hlo
    # Ten logits and ten probabilities come out; the weights, 29 thousand of them, go in.
    assert compiled.argument_bytes > 29_000 * 4
    assert compiled.memory_bytes < 10_000_000
    assert compiled.cost.flops > 600_000


def test_real_code_for_the_chip_is_in_the_executable() -> None:
    for name, mark in (("cuda:h100", b"sm_90a"), ("rocm:mi300x", b"gfx942")):
        target = compilers.target(name)
        available(target.platform)
        (compiled,) = compilers.compile_for(digits(), [target])[name]
        assert mark in compiled.serialized


def test_libraries_are_called_by_their_makers_names() -> None:
    found = {}
    for name in ("cuda:h100", "rocm:mi300x"):
        target = compilers.target(name)
        available(target.platform)
        (compiled,) = compilers.compile_for(digits(), [target])[name]
        found[name] = compiled.libraries
    assert "miopen" not in found["cuda:h100"]
    assert "cudnn" not in found["rocm:mi300x"]


class Large(nt.Module):
    table: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return self.table.dot(x, "d")


def test_a_program_that_cannot_fit_into_the_chips_memory_is_an_error() -> None:
    available("tpu")
    model = Large(nt.spec("v d", "float32", v=1 << 20, d=1 << 13))
    program = nt.Program(model, {"run": nt.entry(Large.__call__, x=nt.spec("d", d=1 << 13))}, name="large")
    with pytest.raises(nt.ModelError) as error:
        compilers.compile_for(program, [compilers.target("tpu:v5e-1")])
    message = str(error.value)
    assert message.startswith("tpu:v5e-1: ")
    assert "memory" in message.lower() or "hbm" in message.lower()


def test_one_failure_of_several_targets_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    available("cuda")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    broken = compilers.target("cuda:h100")
    limits = dict(broken.chip.compiler["limits"], threads_per_warp='"many"')
    from dataclasses import replace

    chip = replace(broken.chip, compiler=dict(broken.chip.compiler, limits=limits))
    with pytest.raises(nt.ModelError, match="cuda:h100: "):
        compilers.compile_for(digits(), [replace(broken, chip=chip)])
    assert list(tmp_path.iterdir()) == []
