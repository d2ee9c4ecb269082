"""What a checkpoint's JSON files say about a BERT encoder and its sentence embeddings; refuses by name the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import namedtensor as nt
from namedtensor import nn
from namedtensor.models._config import Fields


@dataclass(frozen=True)
class Config:
    """Of `config.json`."""

    vocab: int
    d: int
    ffn: int
    layers: int
    heads: int
    positions: int
    types: int
    activation: str
    eps: float
    pad: int

    @classmethod
    def read(cls, ckpt: nt.Checkpoint) -> Config:
        """Raises `nt.ModelError` for what is missing, out of range or not implemented."""
        fields = Fields.of(ckpt, "config.json")
        fields.choice("model_type", "bert", ("bert",))
        fields.choice("position_embedding_type", "absolute", ("absolute",))
        fields.neutral(is_decoder=False, add_cross_attention=False, pruned_heads={})
        if "quantization_config" in fields.given:
            fields.refuse("quantization_config", "is not implemented")
        activation = fields.given.get("hidden_act", "gelu")
        nn.activation(activation)
        d, heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
        if d % heads:
            fields.refuse("num_attention_heads", f"does not divide hidden_size ({d})")
        return cls(
            vocab=fields.whole("vocab_size"),
            d=d,
            ffn=fields.whole("intermediate_size"),
            layers=fields.whole("num_hidden_layers", most=10_000),
            heads=heads,
            positions=fields.whole("max_position_embeddings"),
            types=fields.whole("type_vocab_size", 2),
            activation=activation,
            eps=fields.positive("layer_norm_eps", 1e-12),
            pad=fields.whole("pad_token_id", 0, least=0),
        )


@dataclass(frozen=True)
class Pooling:
    """How states become one vector, as the files of sentence-transformers say: `modules.json` and those it names.

    Checkpoints without these files are pooled by their mean and normalised.
    """

    mode: Literal["mean", "cls"] = "mean"
    normalise: bool = True

    @classmethod
    def read(cls, ckpt: nt.Checkpoint, config: Config) -> Pooling:
        """Raises `nt.ModelError` for modules and kinds of pooling that are not implemented."""
        if not ckpt.has_file("modules.json"):
            return cls()
        listed = ckpt.json("modules.json")
        if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
            raise nt.ModelError("modules.json: a list of modules is needed")
        modules = [Fields("modules.json", module) for module in listed]
        kinds = [str(module.given.get("type")).rpartition(".")[2] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise nt.ModelError(
                f"modules.json: {' then '.join(kinds) or 'nothing'} is not implemented; "
                "implemented: Transformer then Pooling, and then Normalize or not"
            )
        path = modules[1].given.get("path")
        if not isinstance(path, str):
            modules[1].refuse("path", "must be text")
        pooling = Fields.of(ckpt, f"{path}/config.json")
        if pooling.whole("word_embedding_dimension", config.d) != config.d:
            pooling.refuse("word_embedding_dimension", f"is not the width of the model ({config.d})")
        chosen = [key for key, value in pooling.given.items() if key.startswith("pooling_mode") and value is not False]
        modes: dict[str, Literal["mean", "cls"]] = {
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_cls_token": "cls",
        }
        if len(chosen) != 1 or chosen[0] not in modes:
            raise nt.ModelError(
                f"{pooling.file}: {' and '.join(chosen) or 'no pooling mode'} is not implemented; "
                f"implemented: one of {', '.join(modes)}"
            )
        return cls(modes[chosen[0]], kinds[-1] == "Normalize")


def text_limits(ckpt: nt.Checkpoint, config: Config) -> tuple[int, bool]:
    """The most tokens of a text that are read, and whether it is put into lower case before it is cut into tokens."""
    limit, lower = config.positions, False
    if ckpt.has_file("tokenizer_config.json"):
        # Where nobody set a limit, the file holds 10^30.
        limit = min(limit, int(Fields.of(ckpt, "tokenizer_config.json").positive("model_max_length", limit)))
    if ckpt.has_file("sentence_bert_config.json"):
        fields = Fields.of(ckpt, "sentence_bert_config.json")
        limit, lower = fields.whole("max_seq_length", limit), fields.flag("do_lower_case", False)
        if limit > config.positions:
            fields.refuse("max_seq_length", f"exceeds max_position_embeddings ({config.positions})")
    if ckpt.has_file("config_sentence_transformers.json"):
        Fields.of(ckpt, "config_sentence_transformers.json").neutral(default_prompt_name=None)
    return limit, lower
