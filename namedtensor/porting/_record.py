"""What every module of a model takes and returns in one run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from namedtensor import _scope
from namedtensor._base import Base
from namedtensor._errors import ModelError, fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor
from namedtensor.porting.torch_dump import METADATA, ROOT


class Activations(Mapping[str, Tensor]):
    """Tensors by name, in the order in which the modules returned. Made by `nt.activations`.

    - `layers.0.mlp`: what the module at that place returned; `(model)` is what the model itself did
    - `layers.0.mlp:input`: the first tensor that it was given
    - `layers.0.mlp#2`: its second call
    - `layers.0.mlp[0]`, `layers.0.mlp[1].k`: one of several tensors that it returned
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}}  {Tensor._of(_Shape(t), t.axes)!r}" for name, t in self.items())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that `nt.compare` and `namedtensor compare` read, names of axes included."""
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(tensor.numpy(" ".join(tensor.axes))) for name, tensor in self.items()}
        axes = {name: " ".join(tensor.axes) for name, tensor in self.items()}
        metadata = {METADATA: json.dumps({"order": list(self), "axes": axes})}
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            save_file(arrays, temporary, metadata=metadata)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


class _Shape:
    """A tensor's array without its numbers, for a listing."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.array.shape, tensor.dtype


def activations(model: Module, /, *args: Any, call: Callable[..., Any] | None = None, **kwargs: Any) -> Activations:
    """Run `model(*args, **kwargs)`, or `call(model, *args, **kwargs)`, and keep what every module took and returned.

    The model runs eagerly, with weights that are loaded; loops (`nt.scan`) run step by step, and each step is a call
    of its own. Everything is kept in memory at once. Modules called inside `jax.vmap` and the like are left out, as
    there are no values to keep.

    Raises `ModelError` where no module of the model was called.
    """
    with jax.disable_jit(), _scope.naming(model, outline=False, record=True) as state:
        result = (type(model).__call__ if call is None else call)(model, *args, **kwargs)
    assert state.calls is not None
    # The result of the whole call is the model's own: an entry point may do more than one module does.
    calls = [entry for entry in state.calls if entry[0]] + [("", (args, kwargs), result)]
    found: dict[str, Tensor] = {}
    count: dict[str, int] = {}
    for path, given, returned in calls:
        count[path] = count.get(path, 0) + 1
        name = (path or ROOT) + (f"#{count[path]}" if count[path] > 1 else "")
        inputs = _tensors(given)
        if inputs:
            found[f"{name}:input"] = inputs[0][1]
        outputs = _tensors(returned)
        for key, tensor in outputs:
            found[name if len(outputs) == 1 else name + key] = tensor
    if len(calls) == 1 and not found:
        fail(
            "activations: no module of the model was called",
            found={"model": type(model).__name__},
            fix="pass the model first and call it in `call`: nt.activations(model, x, call=lambda model, x: ...)",
            kind=ModelError,
        )
    return Activations(found)


def _tensors(tree: Any) -> list[tuple[str, Tensor]]:
    """Every tensor with values in a tree, with the keys that lead to it: `[0]`, `[1].k`, `[logits]`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, Base))
    return [
        ("".join(_key(part) for part in path), leaf)
        for path, leaf in flat
        if isinstance(leaf, Tensor) and isinstance(leaf.array, (jax.Array, np.ndarray)) and not _traced(leaf)
    ]


def _key(part: Any) -> str:
    if hasattr(part, "name"):
        return f".{part.name}"
    return f"[{part.idx if hasattr(part, 'idx') else getattr(part, 'key', part)}]"


def _traced(tensor: Tensor) -> bool:
    return isinstance(tensor.array, jax.core.Tracer)
