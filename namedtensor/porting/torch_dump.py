"""What every module of a PyTorch model takes and returns, in a safetensors file: the reference to compare a port with.

This file stands alone: copy it to where the PyTorch model runs. It needs torch and safetensors there, and nothing of
namedtensor.

    from torch_dump import dump_torch
    dump_torch(model.eval(), "reference.safetensors", ids)

Names in the file:

    layers.0.mlp            what the module of that name returned; `(model)` is the model itself
    layers.0.mlp:input      the first tensor that it was given
    layers.0.mlp#2          its second call
    layers.0.mlp[0]         one of several tensors that it returned: by place in a tuple, by key in a dict

The header's metadata has one entry, `namedtensor.activations`: a JSON object whose `order` lists the names in the order
in which the modules returned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = "(model)"
METADATA = "namedtensor.activations"


def dump_torch(model: Any, path: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> Any:
    """Run `model(*args, **kwargs)` without gradients, write what every module returned to `path`, return the result.

    The model must be in evaluation mode, and is left as it was. Tensors keep their type, and are copied to the CPU at
    the moment they are seen, so that later changes in place do not show. Raises `ValueError` where the model is in
    training mode, or returns no tensor.
    """
    import torch
    from safetensors.torch import save_file

    training = [name or ROOT for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"{training[0]} is in training mode, where dropout is at work: call model.eval() first")
    found: dict[str, Any] = {}
    calls: dict[str, int] = {}
    running: list[str] = []

    def keep(name: str, tensor: Any) -> None:
        found[name] = tensor.detach().to("cpu", copy=True).contiguous()

    def before(name: str) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            running.append(name if calls[name] == 1 else f"{name}#{calls[name]}")
            given = next(_tensors((args, kwargs), ""), None)
            if given is not None:
                keep(f"{running[-1]}:input", given[1])

        return hook

    def after(_module: Any, _args: Any, result: Any) -> None:
        name, tensors = running.pop(), list(_tensors(result, ""))
        for key, tensor in tensors:
            place = name if len(tensors) == 1 else name + key
            order.append(place)
            keep(place, tensor)

    order: list[str] = []
    hooks = []
    try:
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(before(name or ROOT), with_kwargs=True))
            hooks.append(module.register_forward_hook(after))
        with torch.no_grad():
            result = model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        raise ValueError("no module of the model returned a tensor")
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        save_file(found, temporary, metadata={METADATA: json.dumps({"order": order})})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return result


def _tensors(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every tensor inside tuples, lists and dicts, with the keys that lead to it."""
    import torch

    if isinstance(value, torch.Tensor):
        yield key, value
    elif isinstance(value, Mapping):  # the outputs of transformers are mappings too
        for name, item in value.items():
            yield from _tensors(item, f"{key}[{name}]")
    elif isinstance(value, (tuple, list)):
        for place, item in enumerate(value):
            yield from _tensors(item, f"{key}[{place}]")
