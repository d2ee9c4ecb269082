"""Write tests/golden/images/: two small pictures and what timm's and transformers' preprocessing makes of them.

    scene.png (148x113, RGB), scene.jpg (97x141, RGB), drawing.png (120x80, RGBA)
    reference.json   per library: resize (the shorter edge), crop, interpolation, mean, std
    reference.npz    FILE.LIBRARY.pixels (64, 64, 3) uint8: after resize and centre crop, before normalisation
                     FILE.LIBRARY.tensor (3, 8, 8) float32: every eighth row and column of the normalised tensor

timm: bicubic, resized so that the crop is 0.875 of the shorter edge, ImageNet mean and standard deviation.
transformers: bilinear with PIL, mean and standard deviation 0.5. Alpha is dropped by `convert("RGB")`. Of scene.png's
95 resized columns timm crops the 64 from 16 on (Python's `round`), transformers those from 15 on (rounded down).

Usage: python tests/golden/make_images.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import seeded
import torch
from PIL import Image, ImageDraw, ImageFilter
from timm.data import create_transform
from transformers.models.mobilenet_v2.image_processing_mobilenet_v2 import MobileNetV2ImageProcessor
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

HERE = Path(__file__).parent / "images"
CROP = 64
RESIZE = 73  # floor(64 / 0.875)
TIMM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def scene(width: int, height: int) -> Image.Image:
    """A hill under a sky with a sun and a few trees, softened, with the grain of a photograph."""
    y, x = np.mgrid[0:height, 0:width]
    sky = np.stack([90 + 100 * y / height, 140 + 60 * y / height, 235 - 40 * y / height], -1)
    hill = np.stack([60 + 40 * x / width, 120 - 30 * x / width, 40 + 0 * x], -1)
    ridge = height * (0.55 + 0.12 * np.sin(2 * np.pi * x / width * 1.3))
    picture = Image.fromarray(np.where((y > ridge)[..., None], hill, sky).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((width * 0.7, height * 0.1, width * 0.85, height * 0.1 + width * 0.15), fill=(255, 230, 150))
    for place in (0.15, 0.3, 0.42):
        foot, left = height * (0.72 + place / 3), width * place
        draw.rectangle((left, foot - height * 0.1, left + 4, foot), fill=(70, 45, 30))
        draw.polygon(
            [(left - 9, foot - height * 0.1), (left + 13, foot - height * 0.1), (left + 2, foot - height * 0.35)],
            fill=(20, 80, 35),
        )
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), np.float64)
    grain = 3 * seeded.state("grain").standard_normal(soft.shape)
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def drawing(width: int, height: int) -> Image.Image:
    picture = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 10, width // 2, height - 10), fill=(200, 30, 30, 255))
    draw.ellipse((width // 3, 5, width - 5, height - 5), fill=(30, 60, 200, 128), outline=(0, 0, 0, 255), width=3)
    return picture


def main() -> None:
    HERE.mkdir(exist_ok=True)
    scene(148, 113).save(HERE / "scene.png", optimize=True)
    scene(97, 141).save(HERE / "scene.jpg", quality=88)
    drawing(120, 80).save(HERE / "drawing.png", optimize=True)

    normalised = create_transform((3, CROP, CROP), interpolation="bicubic", crop_pct=0.875, **TIMM)
    plain = create_transform((3, CROP, CROP), interpolation="bicubic", crop_pct=0.875, normalize=False)
    sizes = {"size": {"shortest_edge": RESIZE}, "crop_size": {"height": CROP, "width": CROP}}
    processor = MobileNetV2ImageProcessorPil(**sizes)
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(HERE.glob("*.[pj][np]g")):
        image = Image.open(path).convert("RGB")
        pixels = np.asarray(plain(image)).transpose(1, 2, 0)
        tensor = normalised(image).numpy()
        expected = (pixels / 255 - np.array(TIMM["mean"])) / np.array(TIMM["std"])
        np.testing.assert_allclose(tensor, expected.transpose(2, 0, 1), atol=1e-5)
        arrays[f"{path.name}.timm.pixels"], arrays[f"{path.name}.timm.tensor"] = pixels, tensor[:, ::8, ::8]

        raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        pixels = np.asarray(raw).transpose(1, 2, 0).astype(np.uint8)
        tensor = processor(image, return_tensors="np")["pixel_values"][0].astype(np.float32)
        np.testing.assert_allclose(tensor, (pixels / 255 - 0.5).transpose(2, 0, 1) / 0.5, atol=1e-5)
        arrays[f"{path.name}.transformers.pixels"] = pixels
        arrays[f"{path.name}.transformers.tensor"] = tensor[:, ::8, ::8]
        fast = MobileNetV2ImageProcessor(**sizes)(image, return_tensors="pt")["pixel_values"][0]
        difference = (fast - torch.from_numpy(tensor)).abs().max().item() * 255 / 2
        print(
            f"{path.name}: {path.stat().st_size} bytes; torchvision's resize differs by up to {difference:.1f} of 255"
        )
    np.savez_compressed(HERE / "reference.npz", **arrays)
    settings = {
        "timm": {"resize": RESIZE, "crop": CROP, "interpolation": "bicubic", **TIMM},
        "transformers": {
            "resize": RESIZE,
            "crop": CROP,
            "interpolation": "bilinear",
            "mean": processor.image_mean,
            "std": processor.image_std,
        },
    }
    (HERE / "reference.json").write_text(json.dumps(settings, indent=2) + "\n")
    for key, value in arrays.items():
        print(key, value.shape, value.dtype, float(value.mean()))


if __name__ == "__main__":
    main()
