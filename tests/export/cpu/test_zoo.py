"""Every kind of program of the zoo: the native CPU device gives what jax gives."""

from typing import Any

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor.models.bert.model import program as bert
from namedtensor.models.digits.model import program as digits
from namedtensor.models.llama.model import program as llama
from tests.export.cpu.native import ROOT, assert_as_jax, lowered

GOLDEN = ROOT / "tests" / "golden"


def checkpoint(name: str) -> nt.Checkpoint:
    return nt.Checkpoint.open(str(ROOT / name))


def inputs_of(program: nt.Program, variant: str, below: int = 50) -> dict[str, Any]:
    """Inputs of the right shapes: normal numbers, and whole ones from 0."""
    rng = np.random.default_rng(0)

    def fill(spec: Any) -> np.ndarray[Any, Any]:
        if jax.numpy.issubdtype(spec.dtype, jax.numpy.floating):
            return rng.normal(size=spec.shape).astype(spec.dtype)
        return rng.integers(0, 2 if spec.dtype == bool else below, spec.shape).astype(spec.dtype)

    return dict(jax.tree.map(fill, dict(lowered(program, variant).variant.inputs)))


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "native"])
def test_digits_for_every_level(level: str) -> None:
    program = digits(checkpoint("models/digits/digits.safetensors"))
    executable = assert_as_jax(program, "classify", inputs_of(program, "classify"), level)
    assert executable.steps["convolution"] == 2
    assert len(executable.data) < 64 << 10


@pytest.mark.parametrize("variant", ["encode.b1.s16", "embed.b8.s16"])
def test_bert(variant: str) -> None:
    program = bert(checkpoint("tests/golden/bert/gelu"))
    assert_as_jax(program, variant, inputs_of(program, variant))


@pytest.mark.parametrize("variant", ["prefill.s16", "decode", "sample"])
def test_llama_with_its_cache_donated(variant: str) -> None:
    program = llama(checkpoint("tests/golden/llama/chat"))
    # Positions within the cache; tokens that the vocabulary has.
    assert_as_jax(program, variant, inputs_of(program, variant, below=8))
