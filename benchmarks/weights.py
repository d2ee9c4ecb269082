"""Random weights of a Llama's shape, as the safetensors checkpoint that every peer of a benchmark reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from benchmarks.shapes import Shape


def names(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every weight's name and shape, as Hugging Face's Llama stores them."""
    d, f, hd = shape.width, shape.hidden, shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocabulary, d)
    for i in range(shape.layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (d,)
        yield layer + "self_attn.q_proj.weight", (shape.heads * hd, d)
        yield layer + "self_attn.k_proj.weight", (shape.kv_heads * hd, d)
        yield layer + "self_attn.v_proj.weight", (shape.kv_heads * hd, d)
        yield layer + "self_attn.o_proj.weight", (d, shape.heads * hd)
        yield layer + "post_attention_layernorm.weight", (d,)
        yield layer + "mlp.gate_proj.weight", (f, d)
        yield layer + "mlp.up_proj.weight", (f, d)
        yield layer + "mlp.down_proj.weight", (d, f)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (shape.vocabulary, d)


def write(directory: Path, shape: Shape, *, sparse: bool = False) -> Path:
    """A checkpoint in bf16 with its config.json.

    `sparse` leaves the data a hole in the file: enough for what reads the header only, and no room on the disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(shape.config()))
    header: dict[str, object] = {}
    end = 0
    for name, sizes in names(shape):
        begin, end = end, end + 2 * int(np.prod(sizes))
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    rng = np.random.default_rng(0)
    # One block of noise, repeated from another place each time: a gigabyte of fresh normals would take a minute.
    noise = (rng.standard_normal(1 << 24, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
    path = directory / "model.safetensors"
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        if sparse:
            file.truncate(8 + len(encoded) + end)
            return directory
        for name, sizes in names(shape):
            count = int(np.prod(sizes))
            values = np.ones(count, ml_dtypes.bfloat16)
            if "norm" not in name:
                values = np.resize(np.roll(noise, -int(rng.integers(noise.size))), count)
            file.write(values.tobytes())
    return directory
