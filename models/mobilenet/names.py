"""Where timm and transformers keep the parts of the same network."""

from __future__ import annotations

from dataclasses import dataclass

import namedtensor as nt

# Blocks of each stage after the first, as in table 2 of the paper.
_REPEATS = (2, 3, 4, 3, 3, 1)
_TIMM_PARTS = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))


@dataclass(frozen=True)
class Place:
    """Names of a convolution and of the batch normalisation behind it."""

    conv: str
    norm: str


@dataclass(frozen=True)
class Block:
    """An inverted residual: without `expand`, the first one."""

    expand: Place | None
    depthwise: Place
    project: Place


@dataclass(frozen=True)
class Names:
    """The network from the image to the logits. `stages` holds the blocks, those of one resolution together."""

    stem: Place
    stages: tuple[tuple[Block, ...], ...]
    head: Place
    classifier: str = "classifier"


def timm(ckpt: nt.Checkpoint) -> Names:
    """The checkpoint tells how many blocks a stage has: in the deeper variants more than in the paper."""
    first = "blocks.0.0"
    stages = [[Block(None, Place(f"{first}.conv_dw", f"{first}.bn1"), Place(f"{first}.conv_pw", f"{first}.bn2"))]]
    for stage in range(1, 7):
        blocks: list[Block] = []
        while f"blocks.{stage}.{len(blocks)}.conv_dw.weight" in ckpt or not blocks:
            at = f"blocks.{stage}.{len(blocks)}"
            blocks.append(Block(*(Place(f"{at}.{conv}", f"{at}.{norm}") for conv, norm in _TIMM_PARTS)))
        stages.append(blocks)
    return Names(Place("conv_stem", "bn1"), tuple(map(tuple, stages)), Place("conv_head", "bn2"))


def transformers(ckpt: nt.Checkpoint) -> Names:
    """The first block is part of what is called the stem there, and stages are not told apart."""

    def place(at: str) -> Place:
        return Place(f"mobilenet_v2.{at}.convolution", f"mobilenet_v2.{at}.normalization")

    expands = "mobilenet_v2.conv_stem.expand_1x1.convolution.weight" in ckpt
    first = Block(
        place("conv_stem.expand_1x1") if expands else None, place("conv_stem.conv_3x3"), place("conv_stem.reduce_1x1")
    )
    stages, layer = [[first]], 0
    for repeats in _REPEATS:
        stages.append(
            [
                Block(*(place(f"layer.{i}.{part}") for part in ("expand_1x1", "conv_3x3", "reduce_1x1")))
                for i in range(layer, layer + repeats)
            ]
        )
        layer += repeats
    return Names(place("conv_stem.first_conv"), tuple(map(tuple, stages)), place("conv_1x1"))
