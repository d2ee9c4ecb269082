"""Archives at work: built, unpacked into an empty root file system, and run there without Python or libraries."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import namedtensor as nt
from namedtensor import zoo
from namedtensor.cli import main
from namedtensor.export import archive
from namedtensor.export.archive._build import LEAN_RUNNER, LEAN_TASKS, RUNNER, TASKS
from namedtensor.tasks import Classify, ImagePreprocess
from tests.export.running import confined, refused, run, run_alone
from tests.export.unpack import unpack
from tests.golden import seeded

GOLDEN = Path(__file__).parents[1] / "golden"
SCANS = sorted((Path(__file__).parents[2] / "models" / "digits" / "scans").glob("*.png"))
TARGETS = ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4"]

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of digits."""
    directory = tmp_path_factory.mktemp("root")
    packed = tmp_path_factory.mktemp("archive") / "digits.tar.zst"
    archive.build(zoo.find("digits").program(), packed, TARGETS)
    return unpack(packed, directory)


def expected(files: Sequence[Path | str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["run", "digits", *map(str, files), "--json"]) == 0
    images: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["images"]
    return images


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours["file"] == theirs["file"]
        np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=0, atol=1e-5)
        labels = [[label["label"] for label in image["labels"]] for image in (ours, theirs)]
        assert labels[0] == labels[1]


@pytest.mark.skipif(not confined(), reason="bubblewrap is not here, or may not make namespaces")
def test_it_runs_where_there_is_nothing_but_the_archive(digits: Path, tmp_path: Path) -> None:
    shutil.copy(SCANS[0], tmp_path / "scan.png")
    found = run_alone(digits, tmp_path, "/scan.png")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[1].split()[0] == SCANS[0].name[0]


def test_labels_are_those_of_namedtensor_run(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(digits, *SCANS, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert_same(json.loads(found.stdout)["images"], expected(SCANS, capsys))


def test_people_see_the_same_lines(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", *map(str, SCANS[:3]), "--top", "2"]) == 0
    assert run(digits, *SCANS[:3], "--top", "2").stdout == capsys.readouterr().out


@pytest.mark.parametrize("target", TARGETS[:2])
def test_every_target_gives_the_same(digits: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(digits, SCANS[0], "--json", "--target", target)
    if found.returncode and "this processor has no" in found.stderr:
        pytest.skip(f"this processor cannot run {target}")
    assert_same(json.loads(found.stdout)["images"], expected(SCANS[:1], capsys))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "transparent P", "transparent RGB"])
@pytest.mark.parametrize("size", [(8, 8), (37, 91), (5, 3)], ids=str)
def test_png_of_every_kind_is_read_as_by_namedtensor(
    digits: Path, tmp_path: Path, mode: str, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(3)
    colours = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8), "RGBA")
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(generator.integers(0, 1 << 16, (size[1], size[0]), dtype=np.uint16)).save(path)
    elif mode == "transparent P":
        colours.convert("RGB").convert("P").save(path, transparency=bytes(range(256)))
    elif mode == "transparent RGB":
        image = colours.convert("RGB")
        pixel = image.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        image.save(path, transparency=pixel)
    else:
        colours.convert(mode).save(path)
    found = run(digits, path, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert_same(json.loads(found.stdout)["images"], expected([path], capsys))


# What a model sees of an image

SIDE = 7


class Nothing(nt.Module):
    """No weights: the logits are the pixels."""


def pixels(model: Nothing, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = images.merge("h w c -> label")
    return {"logits": logits, "probabilities": logits * 1}


def seen_program(preprocess: ImagePreprocess) -> nt.Program:
    count = preprocess.height * preprocess.width * preprocess.channels
    sizes = {"b": 1, "h": preprocess.height, "w": preprocess.width, "c": preprocess.channels}
    return nt.Program(
        Nothing(),
        {"classify": nt.entry(pixels, images=nt.spec("b h w c", **sizes))},
        task=Classify(preprocess, labels=tuple(map(str, range(count)))),
        name="pixels",
    )


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that gives back the pixels that its program gets."""
    packed = tmp_path_factory.mktemp("archive") / "pixels.tar.zst"
    archive.build(seen_program(ImagePreprocess(SIDE, SIDE)), packed, ["cpu:x86-64-v2"])
    return unpack(packed, tmp_path_factory.mktemp("root"))


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("crop", [None, "floor", "round"])
def test_images_are_resized_as_by_namedtensor_to_the_bit(
    seen: Path, tmp_path: Path, interpolation: str, crop: str | None
) -> None:
    how = {
        "interpolation": interpolation,
        "resize": None if crop is None else 8,
        "crop": crop or "floor",
        "invert": crop == "round",
        "mean": (0.4, 0.5, 0.6),
        "std": (0.1, 0.2, 0.3),
    }
    preprocess = ImagePreprocess(SIDE, SIDE, **how)  # type: ignore[arg-type]
    manifest = json.loads((seen / "bundle.json").read_text())
    manifest["task"]["preprocess"] = preprocess.to_json()
    (seen / "bundle.json").write_text(json.dumps(manifest))
    generator = np.random.default_rng(5)
    files = []
    for width, height in [(7, 7), (8, 8), (30, 20), (20, 30), (7, 40), (40, 7), (4, 61), (61, 4), (3, 2), (25, 90)]:
        noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        files.append(tmp_path / f"{width}x{height}.png")
        Image.fromarray(noise).save(files[-1])
    found = run(seen, *files, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    for file, image in zip(files, json.loads(found.stdout)["images"], strict=True):
        ours = np.array(image["logits"], np.float32).reshape(SIDE, SIDE, 3)
        np.testing.assert_allclose(ours, preprocess(file), rtol=0, atol=1e-5, err_msg=file.name)


def test_mobilenet_gives_the_logits_of_namedtensor_run_in_batches_of_any_size(tmp_path: Path) -> None:
    case = GOLDEN / "mobilenet" / "timm-035"
    shapes = json.loads((case / "parameters.json").read_text())
    weights = {name: seeded.convolutional(name, shape) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors")
    shutil.copy(case / "config.json", tmp_path)
    program = zoo.find("mobilenet").program(tmp_path)
    archive.build(program, tmp_path / "mobilenet.tar.zst", ["cpu:x86-64-v2"])
    files = [GOLDEN / "images" / "scene.png", GOLDEN / "images" / "drawing.png"]
    found = run(unpack(tmp_path / "mobilenet.tar.zst", tmp_path / "root"), *files, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    batch = json.loads(found.stdout)["images"]
    single = json.loads(run(tmp_path / "root" / "mobilenet", files[1], "--json").stdout)["images"]
    session = program.start(only=["classify"])
    # Alone or beside another, an image gets the same.
    wanted = program.task.run(session, files).to_json()["images"]
    assert_same([*batch, *single], [*wanted, wanted[1]])


# What is refused, in one line


def test_usage_and_input_have_codes_of_their_own(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    assert "required" in refused(digits, code=2)
    assert "--tpo" in refused(digits, SCANS[0], "--tpo", "2", code=2)
    assert "--top" in refused(digits, SCANS[0], "--top", "0", code=2)
    assert "nothing for cpu:z80" in refused(digits, SCANS[0], "--target", "cpu:z80", code=2)
    assert "cannot be read" in refused(digits, tmp_path / "missing.png", code=3)
    assert "PNG and JPEG" in refused(digits, tmp_path / "text.png", code=3)
    assert "directory" in refused(digits, tmp_path, code=3)


def test_help_names_the_models_own_arguments(digits: Path) -> None:
    found = run(digits, "--help")
    assert found.returncode == 0
    assert "<IMAGE>..." in found.stdout
    assert "--top" in found.stdout


def test_a_program_beside_its_weights_downloads_none(digits: Path) -> None:
    told = refused(digits, SCANS[0], "--weights", "https://a.example/w?key=secret", code=2)
    assert told == (
        "digits: error: --weights https://a.example/w: this archive was built with its weights inside, and its program "
        "downloads nothing; leave --weights out, or build the archive with --weights-outside; try --help\n"
    )
    assert "--weights <FILE>" in run(digits, "--help").stdout


@pytest.mark.parametrize("task", TASKS)
def test_the_smaller_program_knows_the_tasks_that_it_is_packed_for(copy: Path, task: str) -> None:
    shutil.copy(LEAN_RUNNER, copy / "digits")
    bundle = json.loads((copy / "bundle.json").read_text())
    if task != bundle["task"]["task"]:
        (copy / "bundle.json").write_text(json.dumps(bundle | {"task": {"task": task, "entry": None}}))
    if task in LEAN_TASKS:
        assert run(copy, "--help").returncode == 0
    else:
        told = f"bundle.json: the task is {task}, which this program was built without; build the archive again"
        assert told in refused(copy, "--help", code=1)


@pytest.fixture
def copy(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "digits"))


@pytest.mark.parametrize("name", ["targets/cpu-x86-64-v2/classify.ntx", "weights/model.safetensors"])
def test_a_changed_file_is_not_used(copy: Path, name: str) -> None:
    with open(copy / name, "r+b") as file:
        file.seek(100)
        file.write(b"\xff\x00\xff")
    assert "damaged" in refused(copy, SCANS[0], "--target", "cpu:x86-64-v2", code=1)


def test_a_link_is_not_followed(copy: Path, digits: Path) -> None:
    weights = copy / "weights" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(digits / "weights" / "model.safetensors")
    assert "it is a link" in refused(copy, SCANS[0], code=1)
    shutil.rmtree(copy / "weights")
    (copy / "weights").symlink_to(digits / "weights")
    assert "it is a link" in refused(copy, SCANS[0], code=1)


def test_weights_outside_are_those_it_was_built_with(tmp_path: Path, digits: Path) -> None:
    packed, outside = tmp_path / "digits.tar.zst", tmp_path / "digits.safetensors"
    archive.build(zoo.find("digits").program(), packed, ["cpu:x86-64-v2"], weights_outside=outside)
    program = unpack(packed, tmp_path)
    assert "say where they are" in refused(program, SCANS[0], code=1)
    assert run(program, SCANS[0], "--weights", outside).stdout == run(digits, SCANS[0]).stdout
    assert run(digits, SCANS[0], "--weights", outside).stdout == run(digits, SCANS[0]).stdout
    os.truncate(outside, 100)
    assert "100 bytes" in refused(program, SCANS[0], "--weights", outside, code=1)
