"""The model of tests/golden/porting, ported: as it should be, or with one mistake."""

from pathlib import Path
from typing import Any

import numpy as np

import namedtensor as nt
from namedtensor import nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "porting"
REFERENCE = GOLDEN / "reference.safetensors"
IDS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 19]]
NAMES = {
    "blocks.*.attention": "blocks.*.attn",
    "blocks.*.attention.qkv": ("blocks.*.attn.qkv", "b s (three heads hd)"),
    "blocks.*.attention.proj": "blocks.*.attn.proj",
    "blocks.*.mlp.up": "blocks.*.mlp.0",
    "blocks.*.mlp.down": "blocks.*.mlp.2",
}


class Attention(nt.Module):
    qkv: nn.Linear
    proj: nn.Linear
    causal: bool = True
    scale: float | None = None

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, *, qkv: str = "(three heads hd) d", **mistakes: Any) -> "Attention":
        return cls(
            nn.Linear.load(ckpt.scope("qkv"), qkv, over="d", bias=True, three=3, heads=3),
            nn.Linear.load(ckpt.scope("proj"), "d (heads hd)", over="heads hd", bias=True, heads=3),
            **mistakes,
        )

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        q, k, v = self.qkv(x).unstack("three")
        at = nt.arange("s", x.size("s"))
        mask = nn.causal_mask(at, at.rename("s -> keys")) if self.causal else None
        k, v = k.rename("s -> keys"), v.rename("s -> keys")
        return self.proj(nn.attention(q, k, v, mask=mask, scale=self.scale))


class MLP(nt.Module):
    up: nn.Linear
    down: nn.Linear
    act: str = "gelu"

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, *, bias: bool = True, act: str = "gelu") -> "MLP":
        return cls(
            nn.Linear.load(ckpt.scope("0"), "ff d", over="d", bias=True),
            nn.Linear.load(ckpt.scope("2"), "d ff", over="ff", bias=bias),
            act,
        )

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return self.down(nn.activation(self.act)(self.up(x)))


class Block(nt.Module):
    norm1: nn.LayerNorm
    attention: Attention
    norm2: nn.LayerNorm
    mlp: MLP

    @classmethod
    def load(
        cls, ckpt: nt.Checkpoint, *, eps: float = 1e-6, attention: dict[str, Any] | None = None, **mlp: Any
    ) -> "Block":
        return cls(
            nn.LayerNorm.load(ckpt.scope("norm1"), eps=eps),
            Attention.load(ckpt.scope("attn"), **(attention or {})),
            nn.LayerNorm.load(ckpt.scope("norm2"), eps=1e-6),
            MLP.load(ckpt.scope("mlp"), **mlp),
        )

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Scorer(nt.Module):
    tokens: nn.Embedding
    blocks: list[Block]
    norm: nn.LayerNorm
    head: nn.Linear
    scaled: bool = True

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, *, scaled: bool = True, **second_block: Any) -> "Scorer":
        """`second_block`: mistakes in `blocks.1`."""
        return cls(
            nn.Embedding.load(ckpt.scope("tokens")),
            [Block.load(ckpt.scope("blocks.0")), Block.load(ckpt.scope("blocks.1"), **second_block)],
            nn.LayerNorm.load(ckpt.scope("norm"), eps=1e-6),
            nn.Linear.load(ckpt.scope("head"), "vocab d", over="d", bias=True),
            scaled,
        )

    def __call__(self, ids: nt.Tensor) -> nt.Tensor:
        x = self.tokens(ids)
        if self.scaled:
            x = x * x.size("d") ** 0.5
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def recorded(**mistakes: Any) -> nt.Activations:
    declared = Scorer.load(nt.Checkpoint.open(GOLDEN / "model.safetensors"), **mistakes)
    model = nt.load(declared, progress=False).result()
    return nt.activations(model, nt.wrap(np.array(IDS, np.int32), "b s"))
