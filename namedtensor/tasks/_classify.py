"""Image files in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from namedtensor._errors import InputError, ModelError, fail
from namedtensor._tensor import wrap
from namedtensor.tasks._batch import batches
from namedtensor.tasks._image import ImagePreprocess

if TYPE_CHECKING:
    from namedtensor.lowering import Session

type Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Classify:
    """A program that labels images; plain data.

    The entry point `entry` takes `images` (b, h, w, c) float32, as `preprocess` makes them, and returns a dict with
    `logits` and `probabilities`, both (b, label) float32. `labels` holds a name for each position along `label`; `top`
    is how many are reported unless the caller says otherwise.
    """

    preprocess: ImagePreprocess
    labels: tuple[str, ...]
    top: int = 5
    entry: str = "classify"

    def run(self, session: Session, files: Sequence[str | Path], *, top: int | None = None) -> Classification:
        """Label image files. Raises `InputError` where there are none, or one of them is not an image."""
        if isinstance(files, (str, Path)):
            files = [files]
        if not files:
            raise InputError("no image was given; name at least one file")
        top = self.top if top is None else top
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InputError(f"top={top!r} labels were asked for; a whole number from 1 is needed")
        images: list[ImageLabels] = []
        for first, last, size in batches(session, self.entry, "images", len(files)):
            pixels = np.zeros(
                (size, self.preprocess.height, self.preprocess.width, self.preprocess.channels), np.float32
            )
            for row, file in enumerate(files[first:last]):
                pixels[row] = self.preprocess(file)
            found = session.call(self.entry, images=wrap(pixels, "b h w c"))
            logits, probabilities = (found[name].numpy("b label") for name in ("logits", "probabilities"))
            if logits.shape[1] != len(self.labels):
                fail(
                    f"Classify: {len(self.labels)} labels for a model of {logits.shape[1]} classes",
                    fix="check the labels in the checkpoint's config",
                    kind=ModelError,
                )
            for row, file in enumerate(files[first:last]):
                images.append(ImageLabels(str(file), self._best(logits[row], probabilities[row], top), logits[row]))
        return Classification(tuple(images))

    def _best(self, logits: Array, probabilities: Array, top: int) -> tuple[Label, ...]:
        # By logit: probabilities that round to the same number keep their order.
        order = np.argsort(-logits, kind="stable")[:top]
        return tuple(Label(self.labels[i], int(i), float(probabilities[i]), float(logits[i])) for i in order)

    def to_json(self) -> dict[str, Any]:
        """The declaration, for a machine."""
        return {"task": "classify", **asdict(self)}


@dataclass(frozen=True)
class Label:
    """One answer: the label, its position in the model's output, its probability (0 to 1) and its logit."""

    label: str
    index: int
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """What was found in one image: the likeliest labels, best first, and the logits of all (label,)."""

    file: str
    labels: tuple[Label, ...]
    logits: Array

    def __str__(self) -> str:
        return f"{self.file}: " + ", ".join(f"{found.label} {found.probability:.1%}" for found in self.labels)

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        return {"file": self.file, "labels": [asdict(label) for label in self.labels], "logits": self.logits.tolist()}


@dataclass(frozen=True)
class Classification:
    """What `Classify.run` found, one entry for each file, in the order given."""

    images: tuple[ImageLabels, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.images))

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        return {"images": [image.to_json() for image in self.images]}
