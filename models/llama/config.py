"""What a `config.json` of Llama, Mistral, Qwen2 or Qwen3 asks for, or the name of what is not implemented in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import namedtensor as nt
from namedtensor import nn

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
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
}
_LIMIT = 1 << 31


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
    def group(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.heads // self.kv

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """Raises `nt.ModelError`, by name, for what is not implemented, missing, or out of range."""
        if not isinstance(config, Mapping):
            _refuse(f"config.json holds a {type(config).__name__}, not an object")
        family = config.get("model_type")
        if family not in FAMILIES:
            _refuse(f"model_type {family!r} is not implemented", found=f"implemented: {', '.join(FAMILIES)}")
        for key, neutral in _NEUTRAL.items():
            if key in config and config[key] not in neutral:
                _refuse(f"{key} is not implemented", found=_short(config[key]))
        values = _Values({**_DEFAULTS[family], **{k: v for k, v in config.items() if v is not None}}, family)
        heads = values.whole("num_attention_heads")
        kv = values.whole("num_key_value_heads", heads)
        if heads % kv:
            _refuse(f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv})")
        d = values.whole("hidden_size")
        if "head_dim" not in values.given and d % heads:
            _refuse(f"hidden_size ({d}) is not a multiple of num_attention_heads ({heads}), and head_dim is not given")
        head_dim = values.whole("head_dim", d // heads)
        activation = values.given.get("hidden_act", "silu")
        nn.activation(activation)
        bias = family != "mistral" and values.flag("attention_bias", False)
        return cls(
            family=family,
            vocab=values.whole("vocab_size"),
            d=d,
            ffn=values.whole("intermediate_size"),
            heads=heads,
            kv=kv,
            head_dim=head_dim,
            eps=values.positive("rms_norm_eps", 1e-6),
            activation=activation,
            tied=values.flag("tie_word_embeddings", False),
            context=values.whole("max_position_embeddings"),
            rope=nn.Rope.from_config(values.given, head_dim),
            windows=_windows(config, values),
            qkv_bias=family == "qwen2" or bias,
            out_bias=family in ("llama", "qwen3") and bias,
            mlp_bias=family == "llama" and values.flag("mlp_bias", False),
            qk_norm=family == "qwen3",
        )


def _windows(config: Mapping[str, Any], values: _Values) -> tuple[int | None, ...]:
    """The sliding window of every layer; None where a layer sees all positions before its own."""
    family, layers = values.family, values.whole("num_hidden_layers", most=10_000)
    kinds = values.given.get("layer_types")
    if family == "llama" and "sliding_window" in values.given:
        _refuse("sliding_window is not implemented for model_type 'llama'", found=_short(config["sliding_window"]))
    if family in ("llama", "mistral") and kinds is not None:
        _refuse(f"layer_types is not implemented for model_type {family!r}", found=_short(kinds))
    if family == "llama":
        return (None,) * layers
    if family == "mistral":
        # Here null is a choice, not an absence: Mistral 7B v0.2 has no window, v0.1 has.
        null = "sliding_window" in config and config["sliding_window"] is None
        return (None if null else values.whole("sliding_window"),) * layers
    window = values.whole("sliding_window") if values.flag("use_sliding_window", False) else None
    if kinds is None:
        first = values.whole("max_window_layers", 28, least=0)
        return tuple(window if i >= first else None for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        _refuse(f"layer_types must list one type for each of {layers} layers", found=_short(kinds))
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            _refuse(f"layer_types: {kind!r} is not implemented", found="implemented: full_attention, sliding_attention")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


@dataclass(frozen=True)
class _Values:
    """The keys that are given and not null, read as what they must be."""

    given: Mapping[str, Any]
    family: str

    def whole(self, key: str, default: int | None = None, *, least: int = 1, most: int = _LIMIT) -> int:
        value = self.given.get(key, default)
        if value is None:
            _refuse(f"{key} is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            _refuse(f"{key} must be a whole number from {least} to {most}", found=_short(value))
        return value

    def positive(self, key: str, default: float) -> float:
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            _refuse(f"{key} must be a number above 0", found=_short(value))
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            _refuse(f"{key} must be true or false", found=_short(value))
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _refuse(problem: str, *, found: str | None = None) -> NoReturn:
    raise nt.ModelError(f"llama: {problem}" + (f"\n  found  {found}" if found else ""))
