"""Weights as one safetensors file, written a few tensors at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from namedtensor._errors import ModelError
from namedtensor.checkpoint import load
from namedtensor.checkpoint._entry import Weight

if TYPE_CHECKING:
    from namedtensor.lowering import Program

# The native CPU device uses mapped tensors where they lie if they are aligned to this.
_ALIGNMENT = 64
# Bytes of tensors that are in memory at a time, besides a single larger one.
_TOGETHER = 1 << 28

_NAMES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


@dataclass(frozen=True)
class Written:
    """A file of weights: its size and digest, and weights that are another's tensor, by that one's name."""

    bytes: int
    sha256: str
    aliases: dict[str, str]


def write_weights(program: Program, path: Path, on_progress: Callable[[int, int], None]) -> Written:
    """Write the model's weights, in the types and the order of axes that the program takes.

    `on_progress` is told the bytes that were written, and how many they will be. Raises `CheckpointError` where they
    cannot be read.
    """
    own, aliases = _unique(program.weights())
    # Tensors of whole lines come first, so that none of them is moved off its line by another's odd size.
    order = sorted(own, key=lambda name: (_nbytes(own[name]) % _ALIGNMENT != 0, name))
    digest = hashlib.sha256()
    # While some tensors are written and hashed, the next ones are read.
    with open(path, "wb") as file, ThreadPoolExecutor(max_workers=1) as hashing:
        data: Any = _header(own, order)
        file.write(data)
        digest.update(data)
        total = len(data) + sum(_nbytes(leaf) for leaf in own.values())
        groups = [[own[name] for name in group] for group in _groups(own, order)]
        loading = load(groups[0], progress=False) if groups else None
        for following in (*groups[1:], None):
            if loading is None:
                break
            tensors = loading.result()
            loading = None if following is None else load(following, progress=False)
            for tensor in tensors:
                data = np.ascontiguousarray(np.asarray(tensor)).reshape(-1).view(np.uint8)
                hashed = hashing.submit(digest.update, data)
                file.write(data)
                hashed.result()
                on_progress(file.tell(), total)
        size = file.tell()
    return Written(size, digest.hexdigest(), aliases)


def _unique(weights: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    own: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, leaf in sorted(weights.items()):
        key = leaf if isinstance(leaf, Weight) else id(leaf)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            own[name] = leaf
    return own, aliases


def _nbytes(leaf: Any) -> int:
    return int(np.prod(leaf.shape, dtype=np.int64)) * np.dtype(leaf.dtype).itemsize


def _header(weights: dict[str, Any], order: list[str]) -> bytes:
    entries, start = {}, 0
    for name in order:
        leaf = weights[name]
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ModelError(f"weight {name} is known by its shape only; the model must be made from a checkpoint")
        dtype = np.dtype(leaf.dtype).name
        if dtype not in _NAMES:
            raise ModelError(f"weight {name} is {dtype}, which archives cannot hold yet")
        end = start + _nbytes(leaf)
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(leaf.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _groups(weights: dict[str, Any], order: list[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name in order:
        nbytes = _nbytes(weights[name])
        if group and size + nbytes > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(name)
        size += nbytes
    if group:
        yield group
