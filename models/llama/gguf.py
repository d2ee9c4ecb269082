"""GGUF files of the same models, seen under the names and keys that transformers gives them.

GGUF has names and hyperparameters of its own (github.com/ggml-org/ggml, docs/gguf.md), and stores the queries and keys
of architecture "llama" with the components of a head in the order that pairs neighbours for the rotary embedding.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import namedtensor as nt

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)\Z")
_PARTS = {
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
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
# Keys of config.json and where GGUF keeps them, behind the architecture's name.
_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
    "num_local_experts": "expert_count",
}


def is_gguf(ckpt: nt.Checkpoint) -> bool:
    return "general.architecture" in ckpt.metadata


class Translated(nt.Checkpoint):
    """A GGUF checkpoint that answers to transformers' names, and whose `config.json` is made from its metadata."""

    __slots__ = ("_inner", "_scope")

    def __init__(self, inner: nt.Checkpoint, scope: str = "") -> None:
        self._inner, self._scope = inner, scope

    @property
    def source(self) -> str:
        return self._inner.source

    def names(self) -> list[str]:
        """The stored names, as they are."""
        return self._inner.names()

    def scope(self, prefix: str) -> Translated:
        return Translated(self._inner, f"{self._scope}{prefix}.")

    def weight(self, name: str, spec: str, /, *, dtype: Any = None, **sizes: int) -> nt.Tensor:
        return self._inner.weight(_stored(self._scope + name), spec, dtype=dtype, **sizes)

    def has_file(self, file: str) -> bool:
        return file == "config.json" or self._inner.has_file(file)

    def file(self, file: str) -> Path:
        return self._inner.file(file)

    def json(self, file: str) -> Any:
        return _config(self._inner) if file == "config.json" else self._inner.json(file)


def _stored(name: str) -> str:
    found = _LAYER.match(name)
    if found is None:
        return _OUTSIDE[name]
    return f"blk.{found[1]}.{_PARTS[found[2]]}.{found[3]}"


def _config(ckpt: nt.Checkpoint) -> dict[str, Any]:
    metadata = ckpt.metadata
    family = metadata["general.architecture"]
    if family not in _ARCHITECTURES:
        raise nt.ModelError(
            f"{ckpt.source}: the architecture {family!r} is not implemented; implemented: {', '.join(_ARCHITECTURES)}"
        )
    for key, neutral in (("rope.scaling.type", "none"), ("attention.sliding_window", 0)):
        if metadata.get(f"{family}.{key}", neutral) != neutral:
            raise nt.ModelError(f"{ckpt.source}: {family}.{key} is not implemented for GGUF")
    head = metadata.get(f"{family}.attention.key_length") or _quotient(metadata, family)
    for key in ("rope.dimension_count", "attention.value_length"):
        if metadata.get(f"{family}.{key}", head) != head:
            raise nt.ModelError(f"{ckpt.source}: {family}.{key} other than the size of a head is not implemented")
    given = {key: metadata.get(f"{family}.{place}") for key, place in _KEYS.items()}
    # The number of key heads and the size of a head are left out where they follow from the others.
    config = {key: value for key, value in given.items() if value is not None}
    config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    if family == "qwen3" and "head_dim" not in config:
        config["head_dim"] = None
    return config | {
        "model_type": family,
        "vocab_size": ckpt.info("token_embd.weight").shape[0],
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "tie_word_embeddings": "output.weight" not in ckpt,
        "attention_bias": "blk.0.attn_q.bias" in ckpt,
        "rope_interleaved": family == "llama",
    }


def _quotient(metadata: Any, family: str) -> int | None:
    """The size of a head where it is not given."""
    width, heads = (metadata.get(f"{family}.{key}") for key in ("embedding_length", "attention.head_count"))
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else None
