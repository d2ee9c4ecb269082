"""MobileNetV2 of every width against timm and transformers. Weights are made from their names by `seeded`."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import namedtensor as nt
from namedtensor.models.mobilenet.config import Config
from namedtensor.models.mobilenet.model import MobileNetV2, classify, program
from namedtensor.tasks import ImagePreprocess
from tests.golden import seeded

GOLDEN = Path(__file__).parents[1] / "golden" / "mobilenet"
CASES = sorted(path.name for path in GOLDEN.iterdir())
# Thirteen networks are compiled to run once each; making them fast is not what is tested.
QUICK = {"xla_backend_optimization_level": 0}
LABELS = ("cat", "dog", "horse", "river", "mountain", "bicycle", "teapot", "violin", "lighthouse", "strawberry")


def write(case: str, folder: Path, **changes: Any) -> nt.Checkpoint:
    """The case's checkpoint, keys of its config.json changed; None removes one."""
    shapes = json.loads((GOLDEN / case / "parameters.json").read_text())
    save_file({name: seeded.convolutional(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    config = {**json.loads((GOLDEN / case / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return nt.Checkpoint.open(folder)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def parts(model: MobileNetV2, images: nt.Tensor) -> dict[str, nt.Tensor]:
    """What comes out of every part of the network."""
    found = {}
    x = model.stem(images)
    for place, block in enumerate(model.blocks):
        x = block(x)
        found[f"blocks.{place - 1}" if place else "stem"] = x
    pooled = model.head(x).mean("h w")
    return {**found, "pooled": pooled, "logits": model.classifier(pooled)}


@pytest.mark.parametrize("case", CASES)
def test_every_part_agrees_with_the_reference(case: str, tmp_path: Path) -> None:
    checkpoint = write(case, tmp_path)
    reference = np.load(GOLDEN / case / "reference.npz")
    model = nt.load(MobileNetV2.load(checkpoint, Config.read(checkpoint))).result()
    image = seeded.image(*reference["size"])
    np.testing.assert_allclose(image.reshape(-1)[:8], reference["probe_input"], rtol=1e-6)

    found = jax.jit(parts, compiler_options=QUICK)(model, nt.wrap(image[None], "b c h w"))
    assert set(found) == {
        name for name in reference.files if name.partition(".")[0] in ("stem", "blocks", "pooled", "logits")
    }
    for name, tensor in found.items():
        x = tensor.mean("h w") if "h" in tensor.axes else tensor
        channels = "b label" if name == "logits" else "b c"
        assert largest_difference(x.numpy(channels)[0], reference[name]) < 1e-4, name
        if f"full.{name}" in reference.files:
            assert largest_difference(tensor.numpy("b c h w")[0], reference[f"full.{name}"]) < 1e-4, name


@pytest.mark.parametrize("case", ["timm-035", "hf-035"])
def test_the_program_is_the_parts_in_order(case: str, tmp_path: Path) -> None:
    checkpoint = write(case, tmp_path)
    reference = np.load(GOLDEN / case / "reference.npz")
    model = nt.load(MobileNetV2.load(checkpoint, Config.read(checkpoint))).result()
    image = nt.wrap(seeded.image(*reference["size"])[None], "b c h w")
    found = jax.jit(classify)(model, image)
    assert largest_difference(found["logits"].numpy("b label")[0], reference["logits"]) < 1e-4
    exponentials = np.exp(reference["logits"].astype(np.float64))
    probabilities = found["probabilities"].numpy("b label")[0]
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(), atol=1e-5)


@pytest.mark.parametrize("case", ["timm-035", "hf-035"])
def test_an_image_file_gets_the_labels_of_the_configuration(case: str, tmp_path: Path) -> None:
    size = (
        {"pretrained_cfg": {"input_size": [3, 64, 96], "crop_pct": 0.5}}
        if case.startswith("timm")
        else {"image_size": 64}
    )
    labeller = program(write(case, tmp_path, **size), batches=(2,))
    scene = GOLDEN.parent / "images" / "scene.png"
    found = labeller.task.run(labeller.start(only=()), [scene, scene, scene], top=10)
    assert [image.file for image in found.images] == [str(scene)] * 3
    for image in found.images:
        assert {label.label for label in image.labels} == set(LABELS)
        assert [label.probability for label in image.labels] == sorted(
            (label.probability for label in image.labels), reverse=True
        )
        assert sum(label.probability for label in image.labels) == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(image.logits, found.images[0].logits)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., nt.Checkpoint]:
    return lambda case="timm-035", **changes: write(case, tmp_path, **changes)


def test_classes_without_names_are_numbered(small: Callable[..., nt.Checkpoint]) -> None:
    assert Config.read(small(label_names=None)).labels == tuple("0123456789")
    assert Config.read(small("hf-035", id2label=None)).labels == tuple("0123456789")


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (
            "timm-035",
            {"architecture": "mobilenetv3_large_100"},
            "architecture 'mobilenetv3_large_100' is not implemented",
        ),
        ("timm-035", {"model_args": {"act_layer": "silu"}}, "act_layer is not implemented"),
        ("timm-035", {"global_pool": "max"}, "global_pool 'max' is not implemented"),
        ("timm-035", {"num_classes": 1000}, "num_classes is not the number of classes that the weights have"),
        ("timm-035", {"label_names": ["cat"]}, "label_names must be a list of 10 names"),
        ("timm-035", {"pretrained_cfg": {"crop_pct": 1.2}}, "crop_pct is not implemented; implemented: 0.1 to 1"),
        ("timm-035", {"pretrained_cfg": {"crop_mode": "squash"}}, "crop_mode 'squash' is not implemented"),
        ("timm-035", {"pretrained_cfg": {"interpolation": "random"}}, "interpolation 'random' is not implemented"),
        ("timm-035", {"pretrained_cfg": {"input_size": [3, 224]}}, "input_size must hold three whole numbers"),
        ("timm-035", {"pretrained_cfg": {"input_size": [4, 224, 224]}}, "images of 4 channels are not implemented"),
        ("hf-035", {"model_type": "mobilenet_v1"}, "model_type 'mobilenet_v1' is not implemented"),
        ("hf-035", {"model_type": None}, "model_type is missing"),
        ("hf-035", {"hidden_act": "snake"}, "'snake' is not implemented"),
        ("hf-035", {"output_stride": 4}, "output_stride is not implemented"),
        ("hf-035", {"tf_padding": "yes"}, "tf_padding must be true or false"),
        ("hf-035", {"id2label": {"0": "cat"}}, "id2label must name the classes 0 to 9"),
        ("hf-035", {"image_size": [96, 96]}, "image_size must be a whole number"),
        ("hf-035", {"quantization_config": {"bits": 8}}, "quantization_config is not implemented"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(
    small: Callable[..., nt.Checkpoint], case: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(nt.ModelError, match=message):
        Config.read(small(case, **changes))


ODD: tuple[Any, ...] = (
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    1e-320,
    "x",
    "",
    [],
    [[]],
    [1, "x"],
    {},
    {"0": 1},
    True,
    2**31,
)


@pytest.mark.parametrize("case", ["timm-035", "hf-035"])
def test_odd_values_are_refused_or_do_not_matter(tmp_path: Path, case: str) -> None:
    checkpoint = write(case, tmp_path)
    original = json.loads((GOLDEN / case / "config.json").read_text())
    inner = original.get("pretrained_cfg", {})
    damaged = [{**original, key: value} for key in original for value in ODD]
    damaged += [{**original, "pretrained_cfg": {**inner, key: value}} for key in inner for value in ODD]
    for config in damaged:
        (tmp_path / "config.json").write_text(json.dumps(config))
        with contextlib.suppress(nt.NamedTensorError):
            Config.read(checkpoint)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"do_center_crop": False}, "do_center_crop is not implemented"),
        ({"do_resize": False}, "do_resize is not implemented"),
        ({"size": {"height": 256, "width": 256}}, "size is not implemented; implemented: shortest_edge"),
        ({"resample": 7}, "resample must be a whole number from 0 to 5"),
    ],
)
def test_other_preprocessing_is_refused_by_name(
    small: Callable[..., nt.Checkpoint], tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(keys))
    with pytest.raises(nt.ModelError, match=message):
        Config.read(small("hf-035"))


def test_preprocessing_is_read_from_the_checkpoint(small: Callable[..., nt.Checkpoint], tmp_path: Path) -> None:
    assert Config.read(small()).preprocess == ImagePreprocess(
        height=224,
        width=224,
        resize=256,
        interpolation="bicubic",
        crop="round",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    checkpoint = small("hf-035")
    assert Config.read(checkpoint).preprocess == ImagePreprocess(
        height=96, width=96, resize=110, interpolation="bilinear", mean=(0.5,), std=(0.5,)
    )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": 96, "width": 80},
                "size": {"shortest_edge": 128},
                "resample": 3,
                "do_rescale": False,
                "do_normalize": False,
            }
        )
    )
    assert Config.read(checkpoint).preprocess == ImagePreprocess(
        height=96, width=80, resize=128, interpolation="bicubic", scale=1.0
    )


def test_a_missing_block_is_named(tmp_path: Path) -> None:
    write("timm-035", tmp_path)
    shapes = json.loads((GOLDEN / "timm-035" / "parameters.json").read_text())
    kept = {name: shape for name, shape in shapes.items() if not name.startswith("blocks.3.")}
    save_file({k: np.zeros(v, np.float32) for k, v in kept.items()}, tmp_path / "model.safetensors")
    with pytest.raises(nt.CheckpointError, match=r"blocks\.3\.0\.conv_pw"):
        program(nt.Checkpoint.open(tmp_path))


def test_images_of_any_format_reach_the_same_network(tmp_path: Path) -> None:
    labeller = program(write("timm-035", tmp_path, pretrained_cfg={"input_size": [3, 32, 32]}), batches=(1,))
    source = Image.open(GOLDEN.parent / "images" / "scene.png")
    files = [tmp_path / f"scene.{ending}" for ending in ("png", "bmp", "webp")]
    for file in files:
        source.save(file, lossless=True)
    shutil.copy(files[0], tmp_path / "named-wrongly.jpg")
    found = labeller.task.run(labeller.start(only=()), [*files, tmp_path / "named-wrongly.jpg"])
    for image in found.images[1:]:
        np.testing.assert_allclose(image.logits, found.images[0].logits, rtol=1e-5)
