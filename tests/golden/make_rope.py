"""Write tests/golden/nn/rope.json: rotary frequencies of transformers for every scaling that models/llama knows.

A list of objects: `name`; `head_dim`; `config`, the keys a config.json would have (`rope_theta`,
`max_position_embeddings`, `rope_scaling`); `inv_freq`, head_dim / 2 float32 values; `attention_scaling`, the factor
on cosine and sine. And rope_applied.npz: x (2, 3 heads, 7 positions, 16), positions (7,), out of the same shape,
rotated with the frequencies of the entry "yarn".

Usage: python tests/golden/make_rope.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

HERE = Path(__file__).parent / "nn"


def _llama3(factor: float, original: int, low: float = 1.0, high: float = 4.0) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _yarn(factor: float, original: int, **more: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **more}


# name: (head_dim, rope_theta, max_position_embeddings, rope_scaling)
CASES: dict[str, tuple[int, float, int, dict[str, Any] | None]] = {
    "default": (16, 10000.0, 2048, None),
    "default-llama3-8b": (128, 500000.0, 8192, None),
    "default-odd-half": (10, 10000.0, 2048, None),
    "linear": (16, 10000.0, 8192, {"rope_type": "linear", "factor": 4.0}),
    "linear-legacy-key": (64, 1000000.0, 8192, {"type": "linear", "factor": 2.5}),
    "llama31-8b": (128, 500000.0, 131072, _llama3(8.0, 8192)),
    "llama32-1b": (64, 500000.0, 131072, _llama3(32.0, 8192)),
    "llama3-small": (16, 10000.0, 256, _llama3(8.0, 64)),
    "llama3-other-bounds": (32, 10000.0, 1024, _llama3(3.0, 128, low=0.5, high=8.0)),
    "yarn": (16, 10000.0, 256, _yarn(4.0, 64)),
    "yarn-qwen25-7b": (
        128,
        1000000.0,
        131072,
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    ),
    "yarn-implied-original": (64, 10000.0, 4096, {"rope_type": "yarn", "factor": 8.0}),
    "yarn-betas": (64, 10000.0, 4096, _yarn(8.0, 512, beta_fast=16.0, beta_slow=2.0)),
    "yarn-attention-factor": (64, 10000.0, 4096, _yarn(8.0, 512, attention_factor=1.25)),
    "yarn-mscale": (64, 10000.0, 4096, _yarn(40.0, 4096, mscale=1.0, mscale_all_dim=0.707)),
    "yarn-no-truncation": (64, 150000.0, 131072, _yarn(32.0, 4096, truncate=False)),
}


def rotary(head_dim: int, theta: float, positions: int, scaling: dict[str, Any] | None) -> LlamaRotaryEmbedding:
    config = LlamaConfig(
        hidden_size=head_dim * 4,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=positions,
        rope_theta=theta,
        rope_scaling=dict(scaling) if scaling else None,
    )
    return LlamaRotaryEmbedding(config)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    entries = []
    for name, case in CASES.items():
        embedding = rotary(*case)
        head_dim, theta, positions, scaling = case
        entries.append(
            {
                "name": name,
                "head_dim": head_dim,
                "config": {"rope_theta": theta, "max_position_embeddings": positions, "rope_scaling": scaling},
                "inv_freq": [float(f"{value:.9g}") for value in embedding.inv_freq.tolist()],
                "attention_scaling": float(embedding.attention_scaling),
            }
        )
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (HERE / "rope.json").write_text(f"[\n{lines}\n]\n")

    x = seeded.normal("rope", (2, 3, 7, 16))
    positions = np.array([0, 1, 2, 5, 31, 100, 255], np.int32)
    cos, sin = rotary(*CASES["yarn"])(torch.from_numpy(x), torch.from_numpy(positions).long()[None])
    out, _ = apply_rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(x), cos, sin)
    np.savez_compressed(HERE / "rope_applied.npz", x=x, positions=positions, out=out.numpy())
    for entry in entries:
        print(entry["name"], entry["attention_scaling"], entry["inv_freq"][:3], entry["inv_freq"][-1])


if __name__ == "__main__":
    main()
