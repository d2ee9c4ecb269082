"""Llama (arXiv 2302.13971, 2307.09288, 2407.21783), Mistral (2310.06825), Qwen2 (2407.10671), Qwen3 (2505.09388).

One decoder serves them all. They differ in what `config.json` says, and in three places: biases of the projections,
norms of queries and keys, and windows of attention.

Axes: b (sequences), s (positions of this call), d (width), vocab, ffn, and in attention kv (heads of keys and
values), group (query heads that share one of them), hd (components of a head), keys (places in the cache).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.llama.config import Config
from namedtensor.models.llama.gguf import Translated, is_gguf
from namedtensor.tasks import Generate

# Prompts run through in pieces of these lengths, padded to the next one.
BUCKETS = (16, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Parts:
    """Layers of one scope of the checkpoint, held to the sizes that `config.json` gives."""

    ckpt: nt.Checkpoint
    config: Config
    dtype: Any

    def linear(self, name: str, spec: str, over: str, bias: bool = False) -> nn.Linear:
        sizes = {axis: self.config.sizes[axis] for axis in re.findall(r"\w+", spec)}
        return nn.Linear.load(self.ckpt.scope(name), spec, over, bias=bias, dtype=self.dtype, **sizes)

    def norm(self, name: str, axis: str) -> nn.RMSNorm:
        size = {axis: self.config.sizes[axis]}
        return nn.RMSNorm.load(self.ckpt.scope(name), axis, eps=self.config.eps, dtype=self.dtype, **size)


class Attention(nt.Module):
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    q_norm: nn.RMSNorm | None
    k_norm: nn.RMSNorm | None
    rope: nn.Rope
    window: int | None

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, window: int | None, dtype: Any) -> Attention:
        part = Parts(ckpt, config, dtype)
        return cls(
            q=part.linear("q_proj", "(kv group hd) d", "d", config.qkv_bias),
            k=part.linear("k_proj", "(kv hd) d", "d", config.qkv_bias),
            v=part.linear("v_proj", "(kv hd) d", "d", config.qkv_bias),
            o=part.linear("o_proj", "d (kv group hd)", "kv group hd", config.out_bias),
            q_norm=part.norm("q_norm", "hd") if config.qk_norm else None,
            k_norm=part.norm("k_norm", "hd") if config.qk_norm else None,
            rope=config.rope,
            window=window,
        )

    def __call__(self, x: nt.Tensor, positions: nt.Tensor, cache: nn.KVCache) -> tuple[nt.Tensor, nn.KVCache]:
        """x: (b, s, d).  positions: (b, s)."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.rope(q, positions), self.rope(k, positions)
        cache = cache.append(k, v, positions.index("s", 0))
        visible = cache.visible(positions, window=self.window)
        return self.o(nn.attention(q, cache.k, cache.v, mask=visible)), cache


class MLP(nt.Module):
    """SwiGLU (arXiv 2002.05202)."""

    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    activation: str

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any) -> MLP:
        part = Parts(ckpt, config, dtype)
        return cls(
            gate=part.linear("gate_proj", "ffn d", "d", config.mlp_bias),
            up=part.linear("up_proj", "ffn d", "d", config.mlp_bias),
            down=part.linear("down_proj", "d ffn", "ffn", config.mlp_bias),
            activation=config.activation,
        )

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        """x: (b, s, d)."""
        return self.down(nn.activation(self.activation)(self.gate(x)) * self.up(x))


class Block(nt.Module):
    attention_norm: nn.RMSNorm
    attention: Attention
    mlp_norm: nn.RMSNorm
    mlp: MLP

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, window: int | None, dtype: Any) -> Block:
        part = Parts(ckpt, config, dtype)
        return cls(
            attention_norm=part.norm("input_layernorm", "d"),
            attention=Attention.load(ckpt.scope("self_attn"), config, window, dtype),
            mlp_norm=part.norm("post_attention_layernorm", "d"),
            mlp=MLP.load(ckpt.scope("mlp"), config, dtype),
        )

    def __call__(self, x: nt.Tensor, positions: nt.Tensor, cache: nn.KVCache) -> tuple[nt.Tensor, nn.KVCache]:
        """x: (b, s, d).  positions: (b, s)."""
        attended, cache = self.attention(self.attention_norm(x), positions, cache)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), cache


class Llama(nt.Module):
    embedding: nn.Embedding
    layers: list[Block]
    norm: nn.RMSNorm
    head: nn.Linear | None  # None where the embedding is the head too

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any = None) -> Llama:
        """Declare the weights, converted to `dtype`; by default to that of the embedding."""
        embedding = nn.Embedding.load(
            ckpt.scope("model.embed_tokens"), "vocab d", dtype=dtype, vocab=config.vocab, d=config.d
        )
        dtype = embedding.weight.dtype
        part = Parts(ckpt, config, dtype)
        return cls(
            embedding=embedding,
            layers=[
                Block.load(ckpt.scope(f"model.layers.{i}"), config, window, dtype)
                for i, window in enumerate(config.windows)
            ],
            norm=part.norm("model.norm", "d"),
            head=None if config.tied else part.linear("lm_head", "vocab d", "d"),
        )

    def __call__(
        self, tokens: nt.Tensor, start: nt.Tensor, cache: list[nn.KVCache]
    ) -> tuple[nt.Tensor, list[nn.KVCache]]:
        """tokens: (b, s), the first of them at position `start`: (b).  Returns (b, s, d) and the cache, filled."""
        positions = start.broadcast(s=tokens.size("s")) + nt.arange("s", tokens.size("s"))
        x = self.embedding(tokens)
        filled = []
        for layer, before in zip(self.layers, cache, strict=True):
            x, after = layer(x, positions, before)
            filled.append(after)
        return self.norm(x), filled

    def logits(self, x: nt.Tensor) -> nt.Tensor:
        """x: (b, ..., d).  Returns (b, ..., vocab), float32."""
        if self.head is None:
            return self.embedding.logits(x, dtype="float32")
        return x.dot(self.head.weight, "d", dtype="float32")

    # -- entry points ---------------------------------------------------------------------------------------------

    def prefill(
        self, tokens: nt.Tensor, start: nt.Tensor, length: nt.Tensor, cache: list[nn.KVCache]
    ) -> dict[str, Any]:
        """A piece of the prompt, and the logits after its last token.

        tokens: (b, s), of which the first `length`: (b) count and the others are padding.
        """
        x, cache = self(tokens, start, cache)
        return {"logits": self.logits(x.gather("s", length - 1)), "cache": cache}

    def decode(self, token: nt.Tensor, position: nt.Tensor, cache: list[nn.KVCache]) -> dict[str, Any]:
        """One token (b) at its position (b), and the logits after it."""
        x, cache = self(token.broadcast(s=1), position, cache)
        return {"logits": self.logits(x.squeeze("s")), "cache": cache}

    def score(self, tokens: nt.Tensor, start: nt.Tensor, cache: list[nn.KVCache]) -> dict[str, Any]:
        """A piece of the prompt (b, s), and the logits after each of its tokens."""
        x, cache = self(tokens, start, cache)
        return {"logits": self.logits(x), "cache": cache}

    def sample(
        self,
        logits: nt.Tensor,
        seen: nt.Tensor,
        seed: nt.Tensor,
        step: nt.Tensor,
        temperature: nt.Tensor,
        top_k: nt.Tensor,
        top_p: nt.Tensor,
        min_p: nt.Tensor,
        repetition_penalty: nt.Tensor,
    ) -> dict[str, Any]:
        """The next token (b) from logits (b, vocab), and the ids seen so far (b, vocab) with it among them.

        One seed and step give one token. The settings are those of `nn.sample` and `nn.repetition_penalty`.
        """
        logits = nn.repetition_penalty(logits, seen, repetition_penalty)
        key = nt.random.fold_in(nt.random.key(seed), step)
        token = nn.sample(key, logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        return {"token": token, "seen": seen | nt.one_hot(token, "vocab", logits.size("vocab"), "bool")}


def program(ckpt: nt.Checkpoint, *, context: int | None = None, batch: int = 1, dtype: str | None = None) -> nt.Program:
    """Entry points `prefill`, `decode`, `score` and `sample` over one set of weights.

    - `context`: most positions of prompt and answer together; by default what the model was made for, up to 4096.
    - `batch`: sequences at a time. Text generation drives one; more are there for callers of the entry points.
    - `dtype`: that of weights, activations and cache, such as `"float32"`; by default that of the checkpoint.
    """
    if is_gguf(ckpt):
        ckpt = Translated(ckpt)
    config = Config.read(ckpt)
    context = min(config.context, 4096) if context is None else context
    if not 1 <= context <= config.context:
        raise nt.ModelError(f"llama: context must be from 1 to {config.context}, the model's own, not {context}")
    if batch < 1:
        raise nt.ModelError(f"llama: batch must be at least 1, not {batch}")
    model = Llama.load(ckpt, config, dtype)
    refuse_unused(ckpt, model)

    buckets = [size for size in BUCKETS if size <= context] or [BUCKETS[0]]
    # A padded piece must not reach beyond the cache, and every piece starts at a multiple of the largest.
    capacity = -(-context // buckets[-1]) * buckets[-1]
    cache = [
        nn.KVCache.spec(b=batch, kv=config.kv, keys=capacity, hd=config.head_dim, dtype=model.norm.weight.dtype)
        for _ in model.layers
    ]
    row, number = nt.spec("b", "int32", b=batch), nt.spec("", "float32")
    logits = nt.spec("b vocab", "float32", b=batch, vocab=config.vocab)
    return nt.Program(
        model,
        {
            "prefill": nt.entry(
                Llama.prefill,
                donate="cache",
                buckets={"s": tuple(buckets)},
                tokens=nt.spec("b s", "int32", b=batch, s=buckets[0]),
                start=row,
                length=row,
                cache=cache,
            ),
            "decode": nt.entry(Llama.decode, donate="cache", token=row, position=row, cache=cache),
            "score": nt.entry(
                Llama.score,
                donate="cache",
                tokens=nt.spec("b s", "int32", b=batch, s=min(buckets[-1], 64)),
                start=row,
                cache=cache,
            ),
            "sample": nt.entry(
                Llama.sample,
                donate="seen",
                logits=logits,
                seen=nt.spec("b vocab", "bool", b=batch, vocab=config.vocab),
                seed=nt.spec("", "uint32"),
                step=nt.spec("", "int32"),
                temperature=number,
                top_k=nt.spec("", "int32"),
                top_p=number,
                min_p=number,
                repetition_penalty=number,
            ),
        },
        # Text is made one sequence at a time.
        task=Generate.of(ckpt, context=context, vocab=config.vocab) if batch == 1 else None,
        name="llama",
    )


def refuse_unused(ckpt: nt.Checkpoint, model: Llama) -> None:
    """Raise where the checkpoint has weights that the model does not use: then it is another model."""
    used = {leaf.name for leaf in jax.tree.leaves(model)}
    # Tables that can be computed, and the head that older files keep beside the embedding it is tied to.
    spare = ("rotary_emb.inv_freq", *(["lm_head.weight"] if model.head is None else []))
    unused = [name for name in ckpt.names() if name not in used and not name.endswith(spare)]
    if unused:
        raise nt.ModelError(
            f"llama: the checkpoint has {len(unused)} weights that this model does not use\n"
            f"  found  {', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}\n"
            "  fix    its config.json describes another model than its weights"
        )
