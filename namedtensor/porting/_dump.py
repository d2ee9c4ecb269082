"""Recorded values from a file, or from the process that made them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from namedtensor import _axes
from namedtensor._base import Base
from namedtensor._errors import AxisError, CheckpointError, InputError, fail
from namedtensor._tensor import Tensor, wrap
from namedtensor.porting.torch_dump import METADATA

type Source = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class Dump:
    """Arrays by name; names of axes where they are known; outputs in the order in which they were made."""

    source: str
    arrays: dict[str, np.ndarray[Any, Any]]
    axes: dict[str, tuple[str, ...]]
    order: tuple[str, ...]

    def tensor(self, name: str) -> Tensor:
        """One value with its names of axes. Raises `InputError` where it has none."""
        if name not in self.axes:
            fail(
                f"compare: {name!r} of {self.source} has no names of axes",
                fix="ours is what nt.activations returned, or a file that its save() wrote; the reference comes second",
                kind=InputError,
            )
        return wrap(self.arrays[name], " ".join(self.axes[name]))


def read(source: Source, what: str) -> Dump:
    """Values of a mapping, an .npz file, or any checkpoint (safetensors, PyTorch).

    Raises `CheckpointError` where a file is damaged, `InputError` where there is nothing in it.
    """
    if isinstance(source, Mapping):
        arrays = {str(name): _array(name, value) for name, value in source.items()}
        axes = {str(name): value.axes for name, value in source.items() if isinstance(value, Base)}
        dump = Dump(what, arrays, axes, tuple(name for name in arrays if not name.endswith(":input")))
    elif str(source).endswith(".npz"):
        arrays = _npz(Path(source))
        dump = Dump(str(source), arrays, {}, tuple(name for name in arrays if not name.endswith(":input")))
    else:
        dump = _checkpoint(source)
    if not dump.order:
        fail(f"compare: there are no values in {dump.source}", kind=InputError)
    return dump


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    array = value.numpy(" ".join(value.axes)) if isinstance(value, Base) else np.asarray(value)
    if array.dtype == object:
        fail(f"compare: {name!r} is not an array of numbers", found={name: value}, kind=InputError)
    return array


def _npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a readable .npz file of arrays ({error})") from None


def _checkpoint(source: str | Path) -> Dump:
    from namedtensor.checkpoint import Checkpoint, load

    ckpt = Checkpoint.open(source)
    ranks = {name: len(ckpt.info(name).shape) for name in ckpt.names()}
    declared = {name: ckpt.weight(name, " ".join(f"a{i}" for i in range(rank))) for name, rank in ranks.items()}
    loaded = load(declared, progress=False).result()
    arrays = {name: np.asarray(tensor.array) for name, tensor in loaded.items()}
    stated = _stated(ckpt.metadata, source)
    order = stated.get("order")
    if not isinstance(order, list):
        order = list(arrays)
    # Names in the metadata that no tensor has are of no use, and a tensor that it leaves out comes last.
    known = dict.fromkeys(name for name in [*order, *arrays] if isinstance(name, str) and name in arrays)
    axes: dict[str, tuple[str, ...]] = {}
    specs = stated.get("axes")
    for name, spec in specs.items() if isinstance(specs, dict) else ():
        try:
            parsed = _axes.names(spec) if isinstance(spec, str) else ()
        except AxisError as error:
            raise CheckpointError(f"{source}: axes of {name!r}: {error}") from None
        if name in arrays and len(parsed) == arrays[name].ndim:
            axes[name] = parsed
    return Dump(str(source), arrays, axes, tuple(name for name in known if not name.endswith(":input")))


def _stated(metadata: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """What the file says of itself; nothing where it was not written by `dump_torch` or `Activations.save`."""
    text = metadata.get(METADATA)
    if not isinstance(text, str):
        return {}
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict):
        raise CheckpointError(f"{source}: {METADATA!r} in its metadata is not a JSON object")
    return stated
