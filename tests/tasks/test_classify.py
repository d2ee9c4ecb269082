"""The task that labels image files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import namedtensor as nt
from namedtensor.tasks import Classify, ImagePreprocess

PREPROCESS = ImagePreprocess(height=2, width=2, channels=1, interpolation="nearest", scale=1.0)
LABELS = ("top left", "top right", "bottom left", "bottom right")


class Pixels(nt.Module):
    """The logits are the pixels."""

    scale: nt.Tensor

    def __call__(self, images: nt.Tensor) -> nt.Tensor:
        return (images * self.scale).squeeze("c").merge("h w -> label")


def classify(model: Pixels, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = model(images)
    return {"logits": logits, "probabilities": logits.softmax("label")}


@pytest.fixture(scope="module")
def session() -> nt.Session:
    images = nt.spec("b c h w", b=1, c=1, h=2, w=2)
    entry = nt.entry(classify, buckets={"b": (1, 4)}, images=images)
    return nt.Program(Pixels(nt.wrap(1.0, "").cast("float32")), {"classify": entry}).start(only=())


@pytest.fixture
def picture(tmp_path: Path) -> Any:
    def write(*values: int) -> Path:
        file = tmp_path / ("-".join(map(str, values)) + ".png")
        Image.fromarray(np.array(values, np.uint8).reshape(2, 2)).save(file)
        return file

    return write


def test_labels_come_best_first(session: nt.Session, picture: Any) -> None:
    (image,) = Classify(PREPROCESS, LABELS, top=2).run(session, [picture(10, 12, 3, 11)]).images
    assert [(found.label, found.index, found.logit) for found in image.labels] == [
        ("top right", 1, 12.0),
        ("bottom right", 3, 11.0),
    ]
    np.testing.assert_array_equal(image.logits, [10, 12, 3, 11])
    exponentials = np.exp([10.0, 12, 3, 11])
    assert image.labels[0].probability == pytest.approx(exponentials[1] / exponentials.sum(), rel=1e-5)


def test_equal_labels_come_in_order(session: nt.Session, picture: Any) -> None:
    (image,) = Classify(PREPROCESS, LABELS).run(session, [picture(7, 9, 9, 7)]).images
    assert [found.index for found in image.labels] == [1, 2, 0, 3]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_any_number_of_files_keeps_its_order(session: nt.Session, picture: Any, count: int) -> None:
    files = [picture(i, 0, 0, 100 + i) for i in range(count)]
    found = Classify(PREPROCESS, LABELS).run(session, files)
    assert [image.file for image in found.images] == [str(file) for file in files]
    assert [image.logits.tolist() for image in found.images] == [[i, 0, 0, 100 + i] for i in range(count)]


def test_one_file_may_come_alone(session: nt.Session, picture: Any) -> None:
    assert len(Classify(PREPROCESS, LABELS).run(session, str(picture(1, 2, 3, 4))).images) == 1


def test_json_holds_every_number(session: nt.Session, picture: Any) -> None:
    file = picture(1, 2, 3, 4)
    document = json.loads(json.dumps(Classify(PREPROCESS, LABELS, top=1).run(session, [file]).to_json()))
    (image,) = document["images"]
    assert image["file"] == str(file)
    assert image["logits"] == [1, 2, 3, 4]
    assert image["labels"][0] | {"probability": 0} == {
        "label": "bottom right",
        "index": 3,
        "logit": 4.0,
        "probability": 0,
    }


def test_the_declaration_is_plain_data() -> None:
    task = Classify(PREPROCESS, LABELS)
    document = json.loads(json.dumps(task.to_json()))
    assert document["task"] == "classify"
    assert document["preprocess"]["height"] == 2
    assert document["labels"] == list(LABELS)


def test_nothing_to_label_is_an_error(session: nt.Session) -> None:
    with pytest.raises(nt.InputError, match="no image was given"):
        Classify(PREPROCESS, LABELS).run(session, [])


@pytest.mark.parametrize("top", [0, -1, True, 2.0])
def test_top_must_be_a_whole_number_from_one(session: nt.Session, picture: Any, top: Any) -> None:
    with pytest.raises(nt.InputError, match="a whole number from 1 is needed"):
        Classify(PREPROCESS, LABELS).run(session, [picture(1, 2, 3, 4)], top=top)


def test_a_file_that_is_no_image_is_named(session: nt.Session, picture: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(nt.InputError, match=r"notes\.txt: is not an image"):
        Classify(PREPROCESS, LABELS).run(session, [picture(1, 2, 3, 4), tmp_path / "notes.txt"])


def test_labels_that_do_not_fit_the_model_are_an_error(session: nt.Session, picture: Any) -> None:
    with pytest.raises(nt.ModelError, match="3 labels for a model of 4 classes"):
        Classify(PREPROCESS, LABELS[:3]).run(session, [picture(1, 2, 3, 4)])
