"""Write tests/golden/mobilenet/ with timm and transformers: networks of real width whose weights are not stored.

    NAME/config.json       as timm or transformers write it
    NAME/parameters.json   shape of every parameter and running statistic by name; the value of `name` is
                           `seeded.convolutional(name, shape)`. Real checkpoints of this family also hold int64 scalars
                           `*.num_batches_tracked`, which are left out.
    NAME/reference.npz     size (2,) int64: the input is `seeded.image(*size)[None]`, already normalised
                           probe_input (8,), probe_weight (8,) float32: the first values of the input and of the first
                           kernel, to tell a recipe that drifted from a model that is wrong
                           stem, blocks.N (c,) float32: output of the stem and of inverted residual N, averaged over
                           height and width
                           pooled (c,), logits (classes,) float32
                           for the case in FULL also full.stem and full.blocks.N (c, h, w) float32

Usage: python tests/golden/make_mobilenet.py [NAME ...]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import timm
import torch
from timm.models import save_for_hf
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

HERE = Path(__file__).parent / "mobilenet"
FULL = "timm-035"
LABELS = ["cat", "dog", "horse", "river", "mountain", "bicycle", "teapot", "violin", "lighthouse", "strawberry"]

# name: (timm's name, classes, height and width of the image)
TIMM: dict[str, tuple[str, int, tuple[int, int]]] = {
    "timm-035": ("mobilenetv2_035", 10, (32, 32)),
    "timm-050": ("mobilenetv2_050", 10, (64, 64)),
    "timm-075": ("mobilenetv2_075", 10, (64, 96)),
    "timm-100": ("mobilenetv2_100", 1000, (96, 96)),
    "timm-110d": ("mobilenetv2_110d", 10, (64, 64)),
    "timm-120d": ("mobilenetv2_120d", 10, (75, 65)),
    "timm-140": ("mobilenetv2_140", 10, (64, 64)),
}
# name: (what differs from MobileNetV2Config's defaults, height and width of the image)
TRANSFORMERS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "hf-035": ({"depth_multiplier": 0.35, "image_size": 96}, (75, 90)),
    "hf-035-coarse": ({"depth_multiplier": 0.35, "finegrained_output": False, "tf_padding": False}, (64, 64)),
    "hf-075-symmetric": ({"depth_multiplier": 0.75, "image_size": 160, "tf_padding": False}, (64, 96)),
    "hf-100": ({}, (96, 96)),
    "hf-140": ({"depth_multiplier": 1.4}, (65, 65)),
    "hf-050-dilated": (
        {
            "depth_multiplier": 0.5,
            "output_stride": 8,
            "first_layer_is_expansion": False,
            "expand_ratio": 4.0,
            "min_depth": 16,
            "depth_divisible_by": 4,
            "hidden_act": "relu",
            "layer_norm_eps": 0.01,
        },
        (50, 67),
    ),
}


def load(model: nn.Module) -> dict[str, list[int]]:
    """Gives the model its seeded values, and returns the shapes by name."""
    shapes = {}
    state = model.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            shapes[name] = list(value.shape)
            state[name] = torch.from_numpy(seeded.convolutional(name, value.shape))
    model.load_state_dict(state)
    model.eval()
    return shapes


def run(model: nn.Module, parts: dict[str, nn.Module], head: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """The logits, the head's input (`pooled`) and the output of every part."""
    found: dict[str, np.ndarray] = {}

    def record(name: str) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            # Copied at once: activations in these networks work in place.
            found[name] = (inputs[0] if name == "pooled" else output)[0].clone().numpy()

        return hook

    hooks = [part.register_forward_hook(record(name)) for name, part in {**parts, "pooled": head}.items()]
    with torch.no_grad():
        output = model(torch.from_numpy(image)[None])
    for hook in hooks:
        hook.remove()
    return {**found, "logits": (output if isinstance(output, torch.Tensor) else output.logits)[0].numpy()}


def write(name: str) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    if name in TIMM:
        architecture, classes, size = TIMM[name]
        model = timm.create_model(architecture, num_classes=classes)
        labels = {"label_names": LABELS} if classes == len(LABELS) else {}
        save_for_hf(model, folder, model_config={"num_classes": classes, **labels}, safe_serialization=True)
        (folder / "model.safetensors").unlink()
        shapes = load(model)
        stages = [block for stage in model.blocks[1:] for block in stage]
        parts = {"stem": model.blocks[0], **{f"blocks.{index}": block for index, block in enumerate(stages)}}
    else:
        settings, size = TRANSFORMERS[name]
        labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}}
        model = MobileNetV2ForImageClassification(MobileNetV2Config(**settings, **labels))
        model.config.architectures = ["MobileNetV2ForImageClassification"]
        model.config.save_pretrained(folder)
        shapes = load(model)
        trunk = model.mobilenet_v2
        parts = {"stem": trunk.conv_stem, **{f"blocks.{index}": block for index, block in enumerate(trunk.layer)}}

    image = seeded.image(*size)
    found = run(model, parts, model.classifier, image)
    exact = run(model.double(), parts, model.classifier, image.astype(np.float64))["logits"]
    error = np.abs(found["logits"] - exact).max() / np.abs(exact).max()
    assert error < 1e-5, f"{name}: float32 itself is off by {error:.1e}"
    arrays = {
        "size": np.array(size),
        "probe_input": image.reshape(-1)[:8],
        "probe_weight": seeded.convolutional(next(iter(shapes)), next(iter(shapes.values()))).reshape(-1)[:8],
        "pooled": found["pooled"],
        "logits": found["logits"],
    }
    for part in parts:
        arrays[part] = found[part].mean((1, 2))
        if name == FULL:
            arrays[f"full.{part}"] = found[part]
    np.savez_compressed(folder / "reference.npz", **arrays)
    entries = ",\n".join(f"{json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    (folder / "parameters.json").write_text(f"{{\n{entries}\n}}\n")
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    spread = [f"{found[part].std():.2f}" for part in list(parts)[::4]]
    kilobytes = sum(file.stat().st_size for file in folder.iterdir()) // 1000
    print(
        f"{name}: {count / 1e6:.2f} M values, stds {' '.join(spread)}, pooled {found['pooled'].std():.2f}, "
        f"logits {found['logits'].std():.2f}, f32 error {error:.1e}, {len(parts) - 1} blocks, {kilobytes} kB"
    )


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*TIMM, *TRANSFORMERS]:
        write(name)


if __name__ == "__main__":
    main()
