"""The same models from GGUF files, written here as converters write them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import namedtensor as nt
from namedtensor.models.llama.model import program

GOLDEN = Path(__file__).parents[1] / "golden" / "llama"
U32, F32, STRING = 4, 6, 8
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def packed(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def pair(key: str, value: str | int | float) -> bytes:
    if isinstance(value, str):
        return packed(key) + struct.pack("<I", STRING) + packed(value)
    code, form = (U32, "<I") if isinstance(value, int) else (F32, "<f")
    return packed(key) + struct.pack("<I", code) + struct.pack(form, value)


def renamed(name: str) -> str:
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, leaf = name.rpartition(".")
    if stem in outside:
        return f"{outside[stem]}.{leaf}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.{leaf}"


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection with the halves of every head interleaved."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, name: str, **changes: str | int | float) -> nt.Checkpoint:
    config = json.loads((GOLDEN / name / "config.json").read_text())
    family, heads = config["model_type"], config["num_attention_heads"]
    kv = config.get("num_key_value_heads", heads)
    metadata: dict[str, str | int | float] = {
        "general.architecture": family,
        f"{family}.context_length": config["max_position_embeddings"],
        f"{family}.embedding_length": config["hidden_size"],
        f"{family}.block_count": config["num_hidden_layers"],
        f"{family}.feed_forward_length": config["intermediate_size"],
        f"{family}.attention.head_count": heads,
        f"{family}.attention.head_count_kv": kv,
        f"{family}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{family}.rope.freq_base": float(config["rope_theta"]),
        "tokenizer.ggml.eos_token_id": 2,
    }
    if "head_dim" in config:
        metadata[f"{family}.attention.key_length"] = config["head_dim"]
    metadata |= changes
    weights = load_file(GOLDEN / name / "model.safetensors")
    if family == "llama":
        for key in weights:
            if "q_proj" in key or "k_proj" in key:
                weights[key] = paired(weights[key], heads if "q_proj" in key else kv)
    header, data = b"", b""
    for key, weight in weights.items():
        data += bytes(-len(data) % 32)
        axes = struct.pack(f"<I{weight.ndim}Q", weight.ndim, *reversed(weight.shape))
        header += packed(renamed(key)) + axes + struct.pack("<IQ", 0, len(data))
        data += np.ascontiguousarray(weight, np.float32).tobytes()
    pairs = b"".join(pair(key, value) for key, value in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(metadata)) + pairs + header
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return nt.Checkpoint.open(path)


@pytest.mark.parametrize("name", ["llama2-mha", "qwen2-tied", "qwen3-tied"])
def test_logits_equal_transformers(tmp_path, name):
    session = program(write(tmp_path / "model.gguf", name), dtype="float32").start(only=())
    assert session.program.task.eos == (2,)
    with np.load(GOLDEN / name / "reference.npz") as reference:
        prompt, expected = reference["prompt"], reference["prefill"]
    scores = session.program.task.score(session, prompt.tolist())
    assert np.abs(scores - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"general.architecture": "gemma3"}, "the architecture 'gemma3' is not implemented; implemented: llama"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling\.type is not implemented"),
        ({"llama.rope.dimension_count": 6}, r"llama\.rope\.dimension_count other than the size of a head"),
        ({"llama.attention.sliding_window": 64}, r"llama\.attention\.sliding_window is not implemented"),
        ({"llama.expert_count": 8}, "num_local_experts is not implemented"),
        ({"llama.block_count": 0}, "num_hidden_layers must be a whole number from 1"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(tmp_path, changes, problem):
    with pytest.raises(nt.ModelError, match=problem):
        program(write(tmp_path / "model.gguf", "llama2-mha", **changes))


def test_a_missing_weight_is_named_as_it_is_stored(tmp_path):
    with pytest.raises(nt.CheckpointError, match=r"no weight 'blk\.2\.attn_norm\.weight'"):
        program(write(tmp_path / "model.gguf", "llama2-mha", **{"llama.block_count": 3}))
