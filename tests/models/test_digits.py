"""The digits model, on scans that it was not trained on."""

from pathlib import Path

import numpy as np
import pytest

import namedtensor as nt
from namedtensor.models.digits.model import WEIGHTS, Digits, program
from namedtensor.tasks import Classification

FOLDER = Path(__file__).parents[2] / "models" / "digits"
SCANS = sorted((FOLDER / "scans").glob("*.png"))


@pytest.fixture(scope="module")
def checkpoint() -> nt.Checkpoint:
    return nt.Checkpoint.open(FOLDER / WEIGHTS)


@pytest.fixture(scope="module")
def found(checkpoint: nt.Checkpoint) -> Classification:
    digits = program(checkpoint)
    return digits.task.run(digits.start(), SCANS)


def test_there_are_scans_of_every_digit() -> None:
    assert {scan.name[0] for scan in SCANS} == set("0123456789")


def test_every_scan_is_labelled_as_its_name_says(found: Classification) -> None:
    assert {Path(image.file).name: image.labels[0].label for image in found.images} == {
        scan.name: scan.name[0] for scan in SCANS
    }


def test_probabilities_are_the_softmax_of_the_logits(found: Classification) -> None:
    for image in found.images:
        exponentials = np.exp(image.logits.astype(np.float64))
        for label in image.labels:
            assert label.probability == pytest.approx(exponentials[label.index] / exponentials.sum(), rel=1e-5)


def test_held_out_accuracy_is_at_least_97_percent(checkpoint: nt.Checkpoint) -> None:
    held_out = np.load(Path(__file__).parent / "digits_held_out.npz")
    model = nt.load(Digits.load(checkpoint)).result()
    images = nt.wrap(held_out["pixels"].astype(np.float32) / 16, "b h w").broadcast(c=1)
    assert len(held_out["labels"]) == 360
    assert (model(images).argmax("label").numpy("b") == held_out["labels"]).mean() >= 0.97


def test_a_scan_file_gives_the_model_the_pixels_of_the_data_set(checkpoint: nt.Checkpoint) -> None:
    held_out = np.load(Path(__file__).parent / "digits_held_out.npz")
    preprocess = program(checkpoint).task.preprocess
    pixels = [np.round(preprocess(scan)[..., 0] * 16) for scan in SCANS]
    for scan, found in zip(SCANS, pixels, strict=True):
        same = (held_out["pixels"] == found).all((1, 2))
        assert set(held_out["labels"][same]) == {int(scan.name[0])}


def test_the_weights_are_small_enough_for_a_repository() -> None:
    assert (FOLDER / WEIGHTS).stat().st_size <= 200_000
