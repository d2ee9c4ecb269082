"""What is built: the same bytes each time, code for the level that was asked for, refusals that name the operation."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt
from namedtensor.export.cpu import LEVELS, _schema, build
from namedtensor.export.cpu._compile import compile_entry
from tests.export.cpu.native import lowered


class Free(nt.Module):
    """A model without weights."""


def program_of(fn: Callable[[jax.Array], Any], *shape: int, dtype: Any = "float32") -> nt.Program:
    axes = " ".join(f"a{i}" for i in range(len(shape)))

    def main(model: Free, x: nt.Tensor) -> Any:
        leaves = jax.tree.leaves(fn(x.data(axes)))
        return [nt.wrap(leaf, " ".join(f"o{i}" for i in range(leaf.ndim))) for leaf in leaves]

    sizes = dict(zip(axes.split(), shape, strict=True))
    return nt.Program(Free(), {"main": nt.entry(main, x=nt.spec(axes, dtype, **sizes))})


def smooth(x: jax.Array) -> jax.Array:
    return jnp.tanh(x) * jnp.exp(-x) + jnp.sin(x)


def plan_of(data: bytes) -> Any:
    _, _, _, start, size, *_ = struct.unpack("<8sII6Q", data[:64])
    return json.loads(data[start : start + size])


def test_the_same_program_gives_the_same_bytes() -> None:
    first, second = (build(lowered(program_of(smooth, 64, 64), "main"), "x86-64-v3").data for _ in range(2))
    assert first == second


@pytest.mark.parametrize("level", LEVELS)
def test_machine_code_is_for_the_level_and_for_no_other(level: str) -> None:
    entry = lowered(program_of(smooth, 64, 64), "main")
    objects = b"".join(object.contents for object in compile_entry(entry, level).result.object_files)
    # AVX-512's instructions begin with 62, AVX's of 256 bits with c4 or c5; plain SSE code of this size has hardly any.
    evex = len(re.findall(rb"\x62[\x61-\x63\x71-\x73\xd1-\xd3\xe1-\xe3\xf1-\xf3]", objects))
    vex = len(re.findall(rb"[\xc4\xc5]", objects))
    assert (evex > 4) == (level == "x86-64-v4")
    assert (vex > 100) == (level != "x86-64-v2")
    assert plan_of(build(entry, level).data)["requires"] == sorted(LEVELS[level])


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(nt.ModelError, match="'x86-64-v9' is no instruction level"):
        build(lowered(program_of(smooth, 4), "main"), "x86-64-v9")


def test_a_program_lowered_for_another_platform_is_refused() -> None:
    with pytest.raises(nt.ModelError, match="was lowered for cuda"):
        build(program_of(smooth, 4).lower("cuda")["main"], "x86-64-v3")


@pytest.mark.parametrize(
    ("fn", "names"),
    [(lambda x: jnp.abs(jnp.fft.fft(x)), "fft"), (jnp.linalg.cholesky, "cholesky")],
    ids=["fft", "cholesky"],
)
def test_what_the_device_cannot_run_is_refused_by_name_and_line(fn: Callable[..., Any], names: str) -> None:
    with pytest.raises(nt.ModelError) as caught:
        build(lowered(program_of(fn, 16, 16), "main"), "x86-64-v3")
    report = str(caught.value)
    assert report.startswith("main: the native CPU device cannot run ")
    assert names in report
    assert re.search(r"line +cpu/test_build.py:\d+", report)


def test_the_levels_limits_are_explained() -> None:
    with pytest.raises(nt.ModelError, match="float16 needs x86-64-v3"):
        build(lowered(program_of(smooth, 40, dtype="float16"), "main"), "x86-64-v2")


def test_every_section_lies_where_the_header_says() -> None:
    data = build(lowered(program_of(smooth, 16), "main"), "x86-64-v3").data
    magic, version, count, *places = struct.unpack("<8sII6Q", data[:64])
    assert (magic, version, count) == (b"\x89NTX\r\n\x1a\n", 1, 3)
    assert all(start % 64 == 0 for start in places[::2])
    assert places[4] + places[5] == len(data)


def test_the_schema_is_read_from_the_library_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path))
    read = _schema._descriptors()
    (kept,) = (tmp_path / "schema").iterdir()
    assert kept.read_bytes() == read.SerializeToString()
    kept.write_bytes(b"\xff" * 40)
    assert _schema._descriptors() == read


def test_a_library_without_the_schema_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "libjax_common.so"
    rng = np.random.default_rng(0)
    library.write_bytes(b"\x0a\x1fxla/service/cpu/executable.proto" + rng.bytes(5000))
    with pytest.raises(nt.ModelError, match=r"holds no xla/service/cpu/executable\.proto"):
        _schema.read_descriptors(library)
