"""What a `config.json` of Llama, Mistral, Qwen2 or Qwen3 asks for, or the name of what is not implemented in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import namedtensor as nt
from namedtensor import nn
from namedtensor.models._config import Fields

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

# Keys that change what is computed, with the values that leave it as it is. Any other value is refused.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "pretraining_tp": (None, 0, 1),
    "num_experts": (None, 0, 1),
    "num_local_experts": (None, 0, 1),
    "n_routed_experts": (None, 0),
    "moe_intermediate_size": (None, 0),
    "num_nextn_predict_layers": (None, 0),
    "num_kv_shared_layers": (None, 0),
    "attention_chunk_size": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "attention_multiplier": (None,),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "clip_qkv": (None,),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "no_rope_layers": (None, []),
    "parallel_attn": (None, False),
    "use_parallel_residual": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "vision_config": (None,),
    "audio_config": (None,),
}
# What transformers takes where a key is absent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
}


@dataclass(frozen=True)
class Config:
    """Sizes and choices of one model, whichever family it is from."""

    family: str
    vocab: int
    d: int
    ffn: int
    heads: int
    kv: int
    head_dim: int
    eps: float
    activation: str
    tied: bool
    context: int
    rope: nn.Rope
    windows: tuple[int | None, ...]
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool

    @property
    def layers(self) -> int:
        return len(self.windows)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the axes, by the names that the model gives them."""
        group = self.heads // self.kv
        return {"vocab": self.vocab, "d": self.d, "ffn": self.ffn, "kv": self.kv, "group": group, "hd": self.head_dim}

    @classmethod
    def read(cls, ckpt: nt.Checkpoint) -> Config:
        """Raises `nt.ModelError`, by name, for what is not implemented, missing, or out of range."""
        fields = Fields.of(ckpt, "config.json")
        family = fields.choice("model_type", None, FAMILIES)
        for key, neutral in _NEUTRAL.items():
            if key in fields.given and fields.given[key] not in neutral:
                fields.refuse(key, "is not implemented")
        # A null differs from an absent key: Mistral 7B has a window, and from version 0.2 on `null` in its place.
        values = {**_DEFAULTS[family], **ckpt.json("config.json")}
        fields = Fields(fields.file, {key: value for key, value in values.items() if value is not None})
        d, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
        kv = fields.whole("num_key_value_heads", heads)
        if heads % kv:
            fields.refuse("num_attention_heads", f"must be a multiple of num_key_value_heads, {kv}")
        if "head_dim" not in fields.given and d % heads:
            fields.refuse(
                "hidden_size", f"must be a multiple of num_attention_heads, {heads}, where head_dim is absent"
            )
        head_dim = fields.whole("head_dim", d // heads)
        activation = fields.given.get("hidden_act", "silu")
        nn.activation(activation)
        bias = family != "mistral" and fields.flag("attention_bias", False)
        return cls(
            family=family,
            vocab=fields.whole("vocab_size"),
            d=d,
            ffn=fields.whole("intermediate_size"),
            heads=heads,
            kv=kv,
            head_dim=head_dim,
            eps=fields.positive("rms_norm_eps", 1e-6),
            activation=activation,
            tied=fields.flag("tie_word_embeddings", False),
            context=fields.whole("max_position_embeddings"),
            rope=nn.Rope.from_config(fields.given, head_dim, interleaved=fields.flag("rope_interleaved", False)),
            windows=_windows(fields, family),
            qkv_bias=family == "qwen2" or bias,
            out_bias=family in ("llama", "qwen3") and bias,
            mlp_bias=family == "llama" and fields.flag("mlp_bias", False),
            qk_norm=family == "qwen3",
        )


def _windows(fields: Fields, family: str) -> tuple[int | None, ...]:
    """The sliding window of every layer; None where a layer sees all positions before its own."""
    layers = fields.whole("num_hidden_layers", most=10_000)
    if family == "llama" and "sliding_window" in fields.given:
        fields.refuse("sliding_window", "is not implemented for model_type 'llama'")
    if family in ("llama", "mistral") and "layer_types" in fields.given:
        fields.refuse("layer_types", f"is not implemented for model_type {family!r}")
    if family == "llama":
        return (None,) * layers
    if family == "mistral":
        return (fields.whole("sliding_window") if "sliding_window" in fields.given else None,) * layers
    # Both name a window that is not used unless another key says so.
    window = fields.whole("sliding_window", 4096) if fields.flag("use_sliding_window", False) else None
    if "layer_types" not in fields.given:
        first = fields.whole("max_window_layers", 28, least=0)
        return tuple(window if i >= first else None for i in range(layers))
    kinds = fields.given["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != layers:
        fields.refuse("layer_types", f"must list a type for each of {layers} layers")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise nt.ModelError(
                f"config.json: layer_types {kind!r} is not implemented; implemented: full_attention, sliding_attention"
            )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
