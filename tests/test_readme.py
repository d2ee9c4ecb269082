"""The first page keeps its word: its example runs, its links lead somewhere, its make targets exist."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import namedtensor as nt

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"query": (24, 16), "key": (24, 16), "value": (24, 16), "output": (16, 24)}
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def attention(x: np.ndarray, weights: dict[str, np.ndarray], head_dim: int) -> np.ndarray:
    """The same in numpy, in one order of axes. x: (b, s, d)."""
    b, s, _ = x.shape
    q, k, v = ((x @ weights[name].T).reshape(b, s, -1, head_dim) for name in ("query", "key", "value"))
    scores = np.einsum("bshe,bthe->bhst", q, k) / np.sqrt(head_dim)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed: np.ndarray = np.einsum("bhst,bthe->bshe", shares, v).reshape(b, s, -1) @ weights["output"].T
    return mixed


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_example_is_attention(tmp_path: Path, weights: dict[str, np.ndarray], compiled: bool) -> None:
    match = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert match is not None
    page: dict[str, Any] = {"__name__": "readme"}
    exec(match.group(1), page)
    save_file({f"{name}.weight": array for name, array in weights.items()}, tmp_path / "model.safetensors")

    declared = page["Attention"].load(nt.Checkpoint.open(tmp_path), head_dim=6)
    block = nt.load(declared).result()
    x = np.random.default_rng(1).standard_normal((2, 5, 16), dtype=np.float32)
    y = (jax.jit(block) if compiled else block)(nt.wrap(x, "b s d"))

    np.testing.assert_allclose(y.numpy("b s d"), attention(x, weights, 6), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets
