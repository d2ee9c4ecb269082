"""MobileNetV2 (arXiv 1801.04381), of every width, with the weights of timm or transformers.

Axes: b (images), h, w, c (channels), label.
"""

from __future__ import annotations

from typing import Any

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.mobilenet import names
from namedtensor.models.mobilenet.config import Config
from namedtensor.tasks import Classify

# Of the first block of each stage; the others have stride 1. Table 2 of the paper.
STRIDES = (1, 2, 2, 2, 1, 2, 1)


class ConvNorm(nt.Module):
    """A convolution, its normalisation, and an activation where there is one."""

    conv: nn.Conv
    norm: nn.BatchNorm
    activation: str | None

    @classmethod
    def load(
        cls,
        ckpt: nt.Checkpoint,
        place: names.Place,
        config: Config,
        dtype: Any,
        *,
        spec: str = "out c kh kw",
        stride: int = 1,
        dilation: int = 1,
        activation: str | None = None,
    ) -> ConvNorm:
        conv = nn.Conv.load(ckpt.scope(place.conv), spec, stride=stride, dilation=dilation, dtype=dtype)
        around = (conv.weight.size("kw") - 1) // 2 * dilation
        return cls(
            conv=conv.replace(padding="same" if config.padding == "same" else around),
            norm=nn.BatchNorm.load(ckpt.scope(place.norm), eps=config.eps, dtype=dtype),
            activation=activation,
        )

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        """x: (b, h, w, c)."""
        x = self.norm(self.conv(x))
        return x if self.activation is None else nn.activation(self.activation)(x)


class InvertedResidual(nt.Module):
    """Few channels in, many inside, few out; the residual connection is between the few."""

    expand: ConvNorm | None
    depthwise: ConvNorm
    project: ConvNorm
    residual: bool

    @classmethod
    def load(
        cls, ckpt: nt.Checkpoint, block: names.Block, config: Config, dtype: Any, *, stride: int, dilation: int
    ) -> InvertedResidual:
        act = config.activation
        expand = None if block.expand is None else ConvNorm.load(ckpt, block.expand, config, dtype, activation=act)
        depthwise = ConvNorm.load(
            ckpt, block.depthwise, config, dtype, spec="c 1 kh kw", stride=stride, dilation=dilation, activation=act
        )
        project = ConvNorm.load(ckpt, block.project, config, dtype)
        channels = (expand or depthwise).conv.weight.size("c")
        return cls(expand, depthwise, project, stride == 1 and channels == project.conv.weight.size("out"))

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        """x: (b, h, w, c)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class MobileNetV2(nt.Module):
    stem: ConvNorm
    blocks: list[InvertedResidual]
    head: ConvNorm
    classifier: nn.Linear

    @classmethod
    def load(cls, ckpt: nt.Checkpoint, config: Config, dtype: Any = None) -> MobileNetV2:
        at, act = config.names, config.activation
        blocks: list[InvertedResidual] = []
        reached, dilation = 2, 1
        for blocks_of_stage, first_stride in zip(at.stages, STRIDES, strict=True):
            for place, block in enumerate(blocks_of_stage):
                wanted = first_stride if place == 0 else 1
                # A stride too many becomes a dilation of the blocks that follow.
                stride = 1 if reached == config.output_stride else wanted
                blocks.append(InvertedResidual.load(ckpt, block, config, dtype, stride=stride, dilation=dilation))
                reached, dilation = reached * stride, dilation * (wanted // stride)
        if not config.first_residual:
            blocks[0] = blocks[0].replace(residual=False)
        return cls(
            stem=ConvNorm.load(ckpt, at.stem, config, dtype, stride=2, activation=act),
            blocks=blocks,
            head=ConvNorm.load(ckpt, at.head, config, dtype, activation=act),
            classifier=nn.Linear.load(ckpt.scope(at.classifier), "label c", "c", bias=True, dtype=dtype),
        )

    def __call__(self, images: nt.Tensor) -> nt.Tensor:
        """images: (b, h, w, c), normalised. Returns logits (b, label)."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.head(x).mean("h w"))


def classify(model: MobileNetV2, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = model(images.cast(model.classifier.weight.dtype)).cast("float32")
    return {"logits": logits, "probabilities": logits.softmax("label")}


def program(ckpt: nt.Checkpoint, *, dtype: str = "float32", batches: tuple[int, ...] = (1, 8)) -> nt.Program:
    """Images run through in groups of the sizes in `batches`."""
    config = Config.read(ckpt)
    seen = config.preprocess
    images = nt.spec("b c h w", b=1, c=seen.channels, h=seen.height, w=seen.width)
    return nt.Program(
        MobileNetV2.load(ckpt, config, dtype),
        {"classify": nt.entry(classify, buckets={"b": batches}, images=images)},
        task=Classify(seen, labels=config.labels),
        name="mobilenet",
    )
