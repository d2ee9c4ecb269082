"""Write tests/golden/nn/: what PyTorch's functions give on small inputs.

cases.json maps a file's stem to its cases and their parameters, under PyTorch's names for them:
`{"conv2d": {"stride": {"stride": [2, 1], ...}, ...}, ...}`. conv2d.npz then holds `CASE.x`, `CASE.out` and whatever
else the function takes: `CASE.weight`, `CASE.bias`, `CASE.mask`. All arrays are float32 in PyTorch's axis order:

    activation   x (n,), one case per function
    layer_norm   x, out (..., d); weight, bias (d,)
    rms_norm     x, out (..., d); weight (d,); the case "bfloat16" was computed in that type
    conv1d       x (n, c_in, w), weight (c_out, c_in / groups, k), bias (c_out,), out (n, c_out, w')
    conv2d       x (n, c_in, h, w), weight (c_out, c_in / groups, kh, kw), bias (c_out,), out (n, c_out, h', w')
    pool1d       x (n, c, w), out (n, c, w'); `kind` is max or avg
    pool2d       x (n, c, h, w), out (n, c, h', w')
    attention    q (n, heads, s, hd), k and v (n, kv, t, hd), out as q; mask (..., s, t), boolean (true: visible) or
                 float32 to be added to the scores
    batch_norm   x, out (n, c, h, w); weight, bias, mean, var (c,)

Usage: python tests/golden/make_nn.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm

HERE = Path(__file__).parent / "nn"
Case = tuple[dict[str, Any], dict[str, np.ndarray]]


def tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)


def activations() -> dict[str, Case]:
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "gelu_new": ACT2FN["gelu_new"],
        "quick_gelu": ACT2FN["quick_gelu"],
        "silu": functional.silu,
        "relu": functional.relu,
        "relu6": functional.relu6,
        "leaky_relu": functional.leaky_relu,
        "elu": functional.elu,
        "hardswish": functional.hardswish,
        "hardsigmoid": functional.hardsigmoid,
        "hardtanh": functional.hardtanh,
        "mish": functional.mish,
        "softplus": functional.softplus,
        "softsign": functional.softsign,
        "sigmoid": functional.sigmoid,
        "log_sigmoid": functional.logsigmoid,
        "tanh": torch.tanh,
    }
    x = np.concatenate([np.linspace(-8, 8, 129), [-100.0, -30.0, -20.5, 20.5, 30.0, 100.0, 1e-6, -1e-6]])
    x = x.astype(np.float32)
    return {name: ({}, {"x": x, "out": function(torch.from_numpy(x)).numpy()}) for name, function in functions.items()}


def layer_norms() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, eps, weight, bias, offset in [
        ("plain", 1e-5, False, False, 0.0),
        ("weight", 1e-5, True, False, 0.0),
        ("affine", 1e-12, True, True, 0.0),
        ("large-mean", 1e-5, True, True, 100.0),
        ("large-eps", 0.1, True, True, 0.0),
    ]:
        arrays = {"x": seeded.normal(f"layer_norm {name}", (2, 5, 24), 2.0, offset)}
        if weight:
            arrays["weight"] = seeded.normal("weight", (24,), 0.3, 1.0)
        if bias:
            arrays["bias"] = seeded.normal("bias", (24,), 0.3)
        out = functional.layer_norm(
            torch.from_numpy(arrays["x"]), (24,), tensor(arrays.get("weight")), tensor(arrays.get("bias")), eps
        )
        cases[name] = {"eps": eps}, {**arrays, "out": out.numpy()}
    return cases


def rms_norms() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, eps, std, dtype in [
        ("plain", 1e-6, 1.0, torch.float32),
        ("small-values", 1e-5, 1e-3, torch.float32),
        ("large-values", 1e-5, 300.0, torch.float32),
        ("bfloat16", 1e-6, 2.0, torch.bfloat16),
    ]:
        norm = LlamaRMSNorm(24, eps=eps).to(dtype)
        x = torch.from_numpy(seeded.normal(f"rms_norm {name}", (2, 5, 24), std)).to(dtype)
        norm.weight.data = torch.from_numpy(seeded.normal("weight", (24,), 0.3, 1.0)).to(dtype)
        arrays = {"x": x, "weight": norm.weight.data, "out": norm(x).detach()}
        cases[name] = {"eps": eps}, {key: value.float().numpy() for key, value in arrays.items()}
    return cases


def convolutions(rank: int) -> dict[str, Case]:
    function = functional.conv1d if rank == 1 else functional.conv2d
    table: dict[str, tuple[int, int, list[int], dict[str, Any]]] = {
        # name: (channels in, channels out, kernel, parameters)
        "plain": (3, 4, [3, 3], {}),
        "pointwise": (5, 2, [1, 1], {}),
        "stride": (3, 4, [3, 2], {"stride": [2, 3]}),
        "padding": (3, 4, [3, 5], {"padding": [1, 2]}),
        "same": (3, 4, [4, 3], {"padding": "same"}),
        "dilation": (3, 4, [3, 2], {"dilation": [2, 3]}),
        "groups": (4, 6, [3, 3], {"groups": 2, "padding": [1, 1]}),
        "depthwise": (6, 6, [3, 3], {"groups": 6, "stride": [2, 2], "padding": [1, 1]}),
        "depthwise-multiplier": (3, 6, [3, 3], {"groups": 3}),
        "everything": (4, 8, [3, 3], {"stride": [2, 1], "padding": [2, 1], "dilation": [2, 1], "groups": 4}),
    }
    cases: dict[str, Case] = {}
    for name, (channels, out_channels, kernel, given) in table.items():
        parameters = {key: value[:rank] if isinstance(value, list) else value for key, value in given.items()}
        shape = (out_channels, channels // parameters.get("groups", 1), *kernel[:rank])
        arrays = {
            "x": seeded.normal(f"conv {name}", (2, channels, *[11, 9][:rank])),
            "weight": seeded.normal(f"conv {name} weight", shape, 0.5),
        }
        if name != "plain":
            arrays["bias"] = seeded.normal(f"conv {name} bias", (out_channels,))
        out = function(
            torch.from_numpy(arrays["x"]), tensor(arrays["weight"]), tensor(arrays.get("bias")), **parameters
        )
        cases[name] = parameters, {**arrays, "out": out.numpy()}
    return cases


def pools(rank: int) -> dict[str, Case]:
    table: dict[str, tuple[str, dict[str, Any]]] = {
        "max": ("max", {"kernel_size": [3, 2], "stride": [3, 2]}),
        "max-overlapping": ("max", {"kernel_size": [3, 3], "stride": [2, 1], "padding": [1, 1]}),
        "max-dilated": ("max", {"kernel_size": [3, 2], "stride": [1, 2], "padding": [1, 1], "dilation": [2, 3]}),
        "avg": ("avg", {"kernel_size": [2, 3], "stride": [2, 3]}),
        "avg-count-padding": (
            "avg",
            {"kernel_size": [3, 3], "stride": [2, 1], "padding": [1, 1], "count_include_pad": True},
        ),
        "avg-skip-padding": (
            "avg",
            {"kernel_size": [3, 3], "stride": [2, 1], "padding": [1, 1], "count_include_pad": False},
        ),
    }
    functions = {
        ("max", 1): functional.max_pool1d,
        ("max", 2): functional.max_pool2d,
        ("avg", 1): functional.avg_pool1d,
        ("avg", 2): functional.avg_pool2d,
    }
    cases: dict[str, Case] = {}
    for name, (kind, given) in table.items():
        parameters = {key: value[:rank] if isinstance(value, list) else value for key, value in given.items()}
        # Far below zero, so that padding with zeros instead of -inf shows.
        x = seeded.normal(f"pool {name}", (2, 3, *[11, 9][:rank]), mean=-3.0)
        out = functions[kind, rank](torch.from_numpy(x), **parameters)
        cases[name] = {"kind": kind, **parameters}, {"x": x, "out": out.numpy()}
    return cases


def attentions() -> dict[str, Case]:
    visible = seeded.state("visible").uniform(size=(2, 1, 5, 7)) < 0.6
    visible[..., 0] = True
    table: dict[str, tuple[tuple[int, int, int, int], dict[str, Any], np.ndarray | None]] = {
        # name: (heads, kv, queries, keys), parameters, mask
        "plain": ((3, 3, 5, 7), {}, None),
        "scale": ((3, 3, 5, 7), {"scale": 0.1}, None),
        "causal": ((3, 3, 6, 6), {"is_causal": True}, None),
        "mask": ((3, 3, 5, 7), {}, visible),
        "bias": ((3, 3, 5, 7), {}, seeded.normal("bias", (1, 3, 5, 7), 2.0)),
        "grouped": ((6, 2, 5, 7), {"enable_gqa": True}, None),
        "grouped-causal": ((6, 2, 6, 6), {"enable_gqa": True, "is_causal": True}, None),
        "multi-query-mask": ((4, 1, 5, 7), {"enable_gqa": True}, visible),
    }
    cases: dict[str, Case] = {}
    for name, ((heads, kv, queries, keys), parameters, mask) in table.items():
        arrays = {
            "q": seeded.normal(f"{name} q", (2, heads, queries, 8), 1.5),
            "k": seeded.normal(f"{name} k", (2, kv, keys, 8), 1.5),
            "v": seeded.normal(f"{name} v", (2, kv, keys, 8)),
        }
        q, k, v = (torch.from_numpy(arrays[part]) for part in "qkv")
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=tensor(mask), **parameters)
        if mask is not None:
            arrays["mask"] = mask
        cases[name] = parameters, {**arrays, "out": out.numpy()}
    return cases


def batch_norms() -> dict[str, Case]:
    arrays = {
        "x": seeded.normal("batch_norm", (2, 5, 4, 3), 2.0),
        "weight": seeded.normal("weight", (5,), 0.3, 1.0),
        "bias": seeded.normal("bias", (5,), 0.3),
        "mean": seeded.normal("mean", (5,)),
        "var": seeded.uniform("var", (5,), 0.3, 2.0),
    }
    x, weight, bias, mean, var = (torch.from_numpy(value) for value in arrays.values())
    out = functional.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)
    return {"inference": ({"eps": 1e-3}, {**arrays, "out": out.numpy()})}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    groups = {
        "activation": activations(),
        "layer_norm": layer_norms(),
        "rms_norm": rms_norms(),
        "conv1d": convolutions(1),
        "conv2d": convolutions(2),
        "pool1d": pools(1),
        "pool2d": pools(2),
        "attention": attentions(),
        "batch_norm": batch_norms(),
    }
    described = {}
    for group, cases in groups.items():
        described[group] = {name: parameters for name, (parameters, _) in cases.items()}
        arrays = {f"{name}.{key}": value for name, (_, values) in cases.items() for key, value in values.items()}
        np.savez_compressed(HERE / f"{group}.npz", **arrays)
        print(f"{group}: {len(cases)} cases, {(HERE / f'{group}.npz').stat().st_size} bytes")
    lines = ",\n".join(f'"{group}": {json.dumps(cases)}' for group, cases in described.items())
    (HERE / "cases.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
