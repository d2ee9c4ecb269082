"""What the tests of checkpoints share: files made by hand, and shorthands to load them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from namedtensor.checkpoint import Checkpoint, load

Json = dict[str, Any]


@pytest.fixture
def golden() -> Path:
    """The directory of checkpoints that PyTorch and the gguf package wrote."""
    return Path(__file__).parent.parent / "golden" / "checkpoints"


@pytest.fixture
def safetensors(tmp_path: Path) -> Callable[..., Path]:
    """Write a safetensors file from a header, which may break every rule, and the bytes after it."""

    def write(
        header: Json | bytes, data: bytes = b"", *, length: int | None = None, name: str = "m.safetensors"
    ) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
        return path

    return write


@pytest.fixture
def values() -> Callable[..., dict[str, np.ndarray[Any, Any]]]:
    """Load every tensor of a checkpoint, or those named."""

    def read(source: Checkpoint | Path | str, *names: str, dtype: Any = None) -> dict[str, np.ndarray[Any, Any]]:
        checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
        tree = {
            name: checkpoint.weight(name, " ".join("abcdefgh"[: len(checkpoint.info(name).shape)]), dtype=dtype).array
            for name in names or checkpoint.names()
        }
        return jax.tree.map(np.asarray, load(tree, progress=False).result(timeout=60))

    return read
