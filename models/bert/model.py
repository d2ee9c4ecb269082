"""BERT (arXiv 1810.04805): encoder states, and sentence embeddings in the manner of Sentence-BERT (1908.10084).

Axes: b (texts), s (positions), d (width), vocab, ffn, heads, hd (components of a head), and in attention keys (the
positions that are looked at).
"""

from __future__ import annotations

from typing import Any

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.bert.config import Config, Pooling, text_limits
from namedtensor.tasks import Embed

LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 8)


class Embeddings(nt.Module):
    words: nn.Embedding
    positions: nt.Tensor
    types: nn.Embedding
    norm: nn.LayerNorm

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any) -> Embeddings:
        return cls(
            words=nn.Embedding.load(ckpt.scope("word_embeddings"), "vocab d", dtype=dtype),
            positions=ckpt.weight("position_embeddings.weight", "s d", dtype=dtype),
            types=nn.Embedding.load(ckpt.scope("token_type_embeddings"), "type d", dtype=dtype),
            norm=layer_norm(ckpt.scope("LayerNorm"), config, dtype),
        )

    def __call__(self, ids: nt.Tensor, token_types: nt.Tensor) -> nt.Tensor:
        """ids, token_types: (b, s). Returns (b, s, d)."""
        x = self.words(ids) + self.types(token_types)
        return self.norm(x + self.positions.slice("s", 0, ids.size("s")))


class Attention(nt.Module):
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    norm: nn.LayerNorm

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any) -> Attention:
        def projection(name: str, spec: str, over: str) -> nn.Linear:
            return nn.Linear.load(ckpt.scope(name), spec, over, bias=True, dtype=dtype, heads=config.heads)

        return cls(
            q=projection("self.query", "(heads hd) d", "d"),
            k=projection("self.key", "(heads hd) d", "d"),
            v=projection("self.value", "(heads hd) d", "d"),
            o=projection("output.dense", "d (heads hd)", "heads hd"),
            norm=layer_norm(ckpt.scope("output.LayerNorm"), config, dtype),
        )

    def __call__(self, x: nt.Tensor, mask: nt.Tensor) -> nt.Tensor:
        """x: (b, s, d).  mask: (b, s), false where a text is padded."""
        k, v = (project(x).rename("s -> keys") for project in (self.k, self.v))
        return self.norm(x + self.o(nn.attention(self.q(x), k, v, mask=mask.rename("s -> keys"))))


class Layer(nt.Module):
    attention: Attention
    up: nn.Linear
    down: nn.Linear
    norm: nn.LayerNorm
    activation: str

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any) -> Layer:
        return cls(
            attention=Attention.load(ckpt.scope("attention"), config, dtype),
            up=nn.Linear.load(ckpt.scope("intermediate.dense"), "ffn d", "d", bias=True, dtype=dtype),
            down=nn.Linear.load(ckpt.scope("output.dense"), "d ffn", "ffn", bias=True, dtype=dtype),
            norm=layer_norm(ckpt.scope("output.LayerNorm"), config, dtype),
            activation=config.activation,
        )

    def __call__(self, x: nt.Tensor, mask: nt.Tensor) -> nt.Tensor:
        """x: (b, s, d).  mask: (b, s)."""
        x = self.attention(x, mask)
        return self.norm(x + self.down(nn.activation(self.activation)(self.up(x))))


class Bert(nt.Module):
    embeddings: Embeddings
    layers: list[Layer]
    pooler: nn.Linear | None

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any = None) -> Bert:
        if "bert.embeddings.word_embeddings.weight" in ckpt:
            ckpt = ckpt.scope("bert")
        pooler = None
        if "pooler.dense.weight" in ckpt:
            pooler = nn.Linear.load(ckpt.scope("pooler.dense"), "pooled d", "d", bias=True, dtype=dtype)
        return cls(
            embeddings=Embeddings.load(ckpt.scope("embeddings"), config, dtype),
            layers=[Layer.load(ckpt.scope(f"encoder.layer.{i}"), config, dtype) for i in range(config.layers)],
            pooler=pooler,
        )

    def __call__(self, ids: nt.Tensor, mask: nt.Tensor, token_types: nt.Tensor) -> nt.Tensor:
        """ids, mask, token_types: (b, s). Returns the last layer's states (b, s, d)."""
        x = self.embeddings(ids, token_types)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def layer_norm(ckpt: nt.Checkpoint, config: Config, dtype: Any) -> nn.LayerNorm:
    if "gamma" in ckpt:  # as the first checkpoints, converted from TensorFlow, have it
        return nn.LayerNorm(ckpt.weight("gamma", "d", dtype=dtype), ckpt.weight("beta", "d", dtype=dtype), config.eps)
    return nn.LayerNorm.load(ckpt, "d", eps=config.eps, dtype=dtype)


def encode(model: Bert, ids: nt.Tensor, mask: nt.Tensor, token_types: nt.Tensor) -> dict[str, nt.Tensor]:
    states = model(ids, mask, token_types)
    if model.pooler is None:
        return {"last_hidden_state": states}
    return {"last_hidden_state": states, "pooler_output": model.pooler(states.index("s", 0)).tanh()}


def embed(
    model: Bert, ids: nt.Tensor, mask: nt.Tensor, token_types: nt.Tensor, *, pooling: Pooling
) -> dict[str, nt.Tensor]:
    states = model(ids, mask, token_types).cast("float32")
    if pooling.mode == "cls":
        vector = states.index("s", 0)
    else:
        kept = mask.cast("float32")
        vector = states.dot(kept, "s") / kept.sum("s").maximum(1)
    if pooling.normalise:
        vector = vector / vector.norm("d").maximum(1e-12)
    return {"embedding": vector}


def program(
    ckpt: nt.Checkpoint,
    *,
    dtype: str = "float32",
    lengths: tuple[int, ...] = LENGTHS,
    batches: tuple[int, ...] = BATCHES,
) -> nt.Program:
    """Texts are padded to the next of `lengths` (tokens) and run through in groups of the sizes in `batches`."""
    config = Config.read(ckpt)
    pooling = Pooling.read(ckpt, config)
    limit, lower = text_limits(ckpt, config)
    task = None
    if ckpt.has_file("tokenizer.json"):
        task = Embed(str(ckpt.file("tokenizer.json")), limit, config.vocab, pad_id=config.pad, lower=lower)

    def entry(fn: Any) -> nt.Entry:
        inputs = {"ids": "int32", "mask": "bool", "token_types": "int32"}
        specs: dict[str, Any] = {name: nt.spec("b s", kind, b=1, s=1) for name, kind in inputs.items()}
        sizes = tuple(length for length in lengths if length < limit)
        return nt.entry(fn, buckets={"b": batches, "s": (*sizes, limit)}, **specs)

    def pooled(model: Bert, **inputs: nt.Tensor) -> dict[str, nt.Tensor]:
        return embed(model, **inputs, pooling=pooling)

    entries = {"encode": entry(encode), "embed": entry(pooled)}
    return nt.Program(Bert.load(ckpt, config, dtype), entries, task=task, name="bert")
