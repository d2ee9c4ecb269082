"""Compiling for accelerators that are not here, where their compilers are in the cache or may be fetched.

The compilers are half a gigabyte, so a run fetches them only where `NAMEDTENSOR_FETCH_COMPILERS=1` says so, as
continuous integration does.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import namedtensor as nt
from namedtensor import _kernels, compilers, zoo
from namedtensor.compilers import _plugins


def available(platform: str) -> None:
    if not _plugins.present(platform) and os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip(f"the {platform} compiler is not in the cache; NAMEDTENSOR_FETCH_COMPILERS=1 fetches it")


def digits() -> nt.Program:
    return zoo.find("digits").program()


@pytest.mark.slow
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


@pytest.mark.slow
def test_real_code_for_the_chip_is_in_the_executable() -> None:
    for name, mark in (("cuda:h100", b"sm_90a"), ("rocm:mi300x", b"gfx942")):
        target = compilers.target(name)
        available(target.platform)
        (compiled,) = compilers.compile_for(digits(), [target])[name]
        assert mark in compiled.serialized


@pytest.mark.slow
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


def large(rows: int) -> nt.Program:
    model = Large(nt.spec("v d", "float32", v=rows, d=1 << 13))
    return nt.Program(model, {"run": nt.entry(Large.__call__, x=nt.spec("d", d=1 << 13))}, name="large")


def test_weights_that_cannot_fit_into_the_chips_memory_are_an_error_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_plugins, "plugin", lambda platform: pytest.fail("a compiler was asked for"))
    with pytest.raises(nt.ModelError) as error:
        compilers.compile_for(large(1 << 20), [compilers.target("cpu:x86-64-v3"), compilers.target("tpu:v5e-1")])
    assert str(error.value).splitlines() == [
        "tpu:v5e-1: run needs 34.4 GB of memory, and the chip has 16.0 GB",
        "  weights 34.4 GB, state 0.0 GB",
        "  fix  a smaller context or batch, a narrower dtype, or a larger chip",
    ]


@pytest.mark.slow
def test_a_plan_that_does_not_fit_is_an_error_with_its_numbers() -> None:
    available("cuda")
    target = compilers.target("cuda:h100")
    assert target.chip is not None
    # Weights alone would fit by a few bytes; weights and results do not.
    small = replace(target, chip=replace(target.chip, memory_bytes=(1 << 28) + 1000))
    with pytest.raises(nt.ModelError, match=r"cuda:h100: run needs 0\.3 GB of memory, and the chip has 0\.3 GB"):
        compilers.compile_for(large(1 << 13), [small])


def test_instruction_levels_are_compiled_beside_chips_with_progress_and_the_same_report() -> None:
    names = ["cpu:x86-64-v2", "cpu:x86-64-v4"]
    if _plugins.present("rocm"):
        names.append("rocm:mi300x")
    seen: list[compilers.Progress] = []
    found = compilers.compile_for(digits(), [compilers.target(name) for name in names], on_progress=seen.append)
    assert list(found) == names
    for name in names:
        assert [(one.done, one.total, one.note) for one in seen if one.what == name] == [(0, 1, "classify"), (1, 1, "")]
    (v2,), (v4,) = found["cpu:x86-64-v2"], found["cpu:x86-64-v4"]
    assert v2.serialized[:4] == v4.serialized[:4] == b"\x89NTX"
    assert v2.serialized != v4.serialized
    for compiled in (v2, v4):
        assert compiled.libraries == ()
        assert compiled.code_bytes > 1000
        assert compiled.weight_bytes > 29_000 * 4
        assert (compiled.state_bytes, compiled.argument_bytes) == (0, compiled.weight_bytes + 64 * 4)
        assert compiled.cost.flops > 600_000


class Wide(nt.Module):
    weight: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return x.dot(self.weight, "d")


def test_portable_programs_hold_no_call_of_the_projects_own_kernels() -> None:
    if not _kernels.available():
        pytest.skip("scripts/build-kernels has not built the kernels")
    model = Wide(nt.spec("e d", "bfloat16", e=1024, d=1024))
    program = nt.Program(
        model, {"run": nt.entry(Wide.__call__, x=nt.spec("b d", "bfloat16", b=1, d=1024))}, name="wide"
    )
    assert "nt.dot" in compilers.lowered(program, "cpu")["run"].text()
    assert "custom_call" not in compilers.portable(program)["run"].text()
    assert "custom_call" not in compilers.lowered(program, "cuda")["run"].text()


class Transform(nt.Module):
    weight: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return nt.wrap(jnp.abs(jnp.fft.fft(x.data("d"))), "d") * self.weight


@pytest.mark.slow
@pytest.mark.parametrize(("name", "library"), [("cuda:h100", "cufft"), ("rocm:mi300x", "hipfft")])
def test_a_library_that_is_called_without_a_custom_call_is_seen(name: str, library: str) -> None:
    target = compilers.target(name)
    available(target.platform)
    model = Transform(nt.spec("d", d=1024))
    program = nt.Program(model, {"run": nt.entry(Transform.__call__, x=nt.spec("d", d=1024))}, name="transform")
    (compiled,) = compilers.compile_for(program, [target])[name]
    assert compiled.libraries == (library,)


@pytest.mark.slow
def test_one_failure_of_several_targets_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    available("cuda")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    broken = compilers.target("cuda:h100")
    assert broken.chip is not None
    limits = dict(broken.chip.compiler["limits"], threads_per_warp='"many"')
    chip = replace(broken.chip, compiler=dict(broken.chip.compiler, limits=limits))
    with pytest.raises(nt.ModelError, match="cuda:h100: "):
        compilers.compile_for(digits(), [replace(broken, chip=chip)])
    assert list(tmp_path.iterdir()) == []
