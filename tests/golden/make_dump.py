"""Write tests/golden/porting/: a small PyTorch model, and what each of its modules returned.

    model.safetensors      the weights of `Scorer`, f32, random
    reference.safetensors  what `dump_torch` wrote of it; `(model):input` are the ids (2, 5)

docs/porting.md ports this model.

Usage: python tests/golden/make_dump.py
"""

import math
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "namedtensor" / "porting"))
from torch_dump import dump_torch  # noqa: E402


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(mixed.transpose(1, 2).reshape(b, s, d))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(d, eps=1e-6)
        self.attn = Attention(d, heads)
        self.norm2 = nn.LayerNorm(d, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Scorer(nn.Module):
    def __init__(self, vocab=20, d=12, heads=3, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.head = nn.Linear(d, vocab)

    def forward(self, ids):
        x = self.tokens(ids) * math.sqrt(self.tokens.embedding_dim)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Scorer().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    out = Path(__file__).resolve().parent / "porting"
    out.mkdir(exist_ok=True)
    os.chdir(out)
    save_file(model.state_dict(), "model.safetensors")
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 19]])
    dump_torch(model, "reference.safetensors", ids)


if __name__ == "__main__":
    main()
