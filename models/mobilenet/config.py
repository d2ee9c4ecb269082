"""What the JSON files of timm and of transformers say about a MobileNetV2; refuses by name what is not implemented."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import namedtensor as nt
from namedtensor import nn
from namedtensor.models._config import Fields
from namedtensor.models.mobilenet import names
from namedtensor.tasks import ImagePreprocess

ARCHITECTURES = tuple(f"mobilenetv2_{width}" for width in ("035", "050", "075", "100", "110d", "120d", "140"))
# How an image is resized, by the numbers that Pillow gives the filters and preprocessor_config.json holds.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True)
class Config:
    """Widths and the number of blocks are not among these: the shapes of the weights tell them."""

    names: names.Names
    activation: str
    eps: float
    # Zeros around a 3×3 window: as many on both sides, or as TensorFlow has it, the odd one behind.
    padding: Literal["symmetric", "same"]
    # How much smaller than the image the last states are; beyond that, windows are dilated instead.
    output_stride: int
    # Whether the first block may have a residual connection as the others do.
    first_residual: bool
    labels: tuple[str, ...]
    preprocess: ImagePreprocess

    @classmethod
    def read(cls, ckpt: nt.Checkpoint) -> Config:
        """Raises `nt.ModelError` for what is missing, out of range or not implemented."""
        fields = Fields.of(ckpt, "config.json")
        if "architecture" in fields.given:
            return _timm(ckpt, fields)
        return _transformers(ckpt, fields)


def _timm(ckpt: nt.Checkpoint, fields: Fields) -> Config:
    fields.choice("architecture", None, ARCHITECTURES)
    fields.choice("global_pool", "avg", ("avg",))
    arguments = fields.inside("model_args")
    for key in arguments.given:
        if key not in ("num_classes", "in_chans", "global_pool"):
            arguments.refuse(key, "is not implemented")
    arguments.choice("global_pool", "avg", ("avg",))
    count = _classes(ckpt)
    if fields.whole("num_classes", count) != count:
        fields.refuse("num_classes", f"is not the number of classes that the weights have ({count})")
    labels = fields.given.get("label_names")
    if labels is not None and (not isinstance(labels, list) or len(labels) != count):
        fields.refuse("label_names", f"must be a list of {count} names")

    cfg = fields.inside("pretrained_cfg")
    cfg.choice("crop_mode", "center", ("center",))
    kept = cfg.positive("crop_pct", 0.875)
    if not 0.1 <= kept <= 1:
        cfg.refuse("crop_pct", "is not implemented; implemented: 0.1 to 1")
    channels, height, width = (int(size) for size in _three(cfg, "input_size", (3, 224, 224)))
    return Config(
        names=names.timm(ckpt),
        activation="relu6",
        eps=1e-5,
        padding="symmetric",
        output_stride=32,
        first_residual=True,
        labels=tuple(map(str, labels or range(count))),
        preprocess=ImagePreprocess(
            height=height,
            width=width,
            channels=_colours(cfg, channels),
            resize=math.floor(max(height, width) / kept),
            interpolation=cfg.choice("interpolation", "bicubic", _FILTERS),  # type: ignore[arg-type]
            crop="round",
            mean=cfg.numbers("mean", (0.485, 0.456, 0.406)),
            std=cfg.numbers("std", (0.229, 0.224, 0.225)),
        ),
    )


def _transformers(ckpt: nt.Checkpoint, fields: Fields) -> Config:
    fields.choice("model_type", None, ("mobilenet_v2",))
    if "quantization_config" in fields.given:
        fields.refuse("quantization_config", "is not implemented")
    activation = fields.given.get("hidden_act", "relu6")
    nn.activation(activation)
    output_stride = fields.whole("output_stride", 32)
    if output_stride not in (8, 16, 32):
        fields.refuse("output_stride", "is not implemented; implemented: 8, 16, 32")
    count = _classes(ckpt)
    given = fields.inside("id2label").given
    if given and set(given) != {str(i) for i in range(count)}:
        fields.refuse("id2label", f"must name the classes 0 to {count - 1}, as many as the weights have")
    return Config(
        names=names.transformers(ckpt),
        activation=activation,
        eps=fields.positive("layer_norm_eps", 1e-3),
        padding="same" if fields.flag("tf_padding", True) else "symmetric",
        output_stride=output_stride,
        first_residual=False,
        labels=tuple(str(given.get(str(i), i)) for i in range(count)),
        preprocess=_processor(ckpt, fields),
    )


def _processor(ckpt: nt.Checkpoint, config: Fields) -> ImagePreprocess:
    """Of `preprocessor_config.json`, or what transformers does without one, scaled to the size in the configuration."""
    side = config.whole("image_size", 224, most=1 << 13)
    channels = _colours(config, config.whole("num_channels", 3))
    fields = Fields.of(ckpt, "preprocessor_config.json") if ckpt.has_file("preprocessor_config.json") else None
    fields = fields or Fields("preprocessor_config.json", {})
    fields.neutral(do_resize=True, do_center_crop=True, do_flip_channel_order=False, do_pad=False)
    size, crop = fields.inside("size"), fields.inside("crop_size")
    if not set(size.given) <= {"shortest_edge"}:
        fields.refuse("size", "is not implemented; implemented: shortest_edge")
    scale, rescaled = fields.positive("rescale_factor", 1 / 255), fields.flag("do_rescale", True)
    normalised = fields.flag("do_normalize", True)
    return ImagePreprocess(
        height=crop.whole("height", side),
        width=crop.whole("width", side),
        channels=channels,
        resize=size.whole("shortest_edge", round(side * 256 / 224)),
        interpolation=_FILTERS[fields.whole("resample", 2, least=0, most=5)],  # type: ignore[arg-type]
        scale=scale if rescaled else 1.0,
        mean=fields.numbers("image_mean", (0.5,)) if normalised else (0.0,),
        std=fields.numbers("image_std", (0.5,)) if normalised else (1.0,),
    )


def _classes(ckpt: nt.Checkpoint) -> int:
    shape = ckpt.info("classifier.weight").shape
    if len(shape) != 2:
        raise nt.CheckpointError(f"classifier.weight of {ckpt.source} has shape {shape}; (classes, features) is needed")
    return int(shape[0])


def _colours(fields: Fields, channels: int) -> Literal[1, 3]:
    if channels == 3:
        return 3
    if channels != 1:
        raise nt.ModelError(f"{fields.file}: images of {channels} channels are not implemented; implemented: 1, 3")
    return 1


def _three(fields: Fields, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    values = fields.numbers(key, default)
    if len(values) != 3 or not all(value.is_integer() and value > 0 for value in values):
        fields.refuse(key, "must hold three whole numbers: channels, height, width")
    return values
