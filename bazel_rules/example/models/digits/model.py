"""Handwritten digits: a convolutional network that fits on a page, as an example of how a model is written.

Trained by `train.py` on scans of 8×8 grey pixels; its weights and a few scans that it was not trained on lie here.
"""

import namedtensor as nt
from namedtensor import nn
from namedtensor.tasks import Classify, ImagePreprocess

WEIGHTS = "digits.safetensors"


class Digits(nt.Module):
    fine: nn.Conv
    coarse: nn.Conv
    out: nn.Linear

    @classmethod
    def load(cls, ckpt: nt.Checkpoint) -> "Digits":
        return cls(
            fine=nn.Conv.load(ckpt.scope("fine"), padding=1, bias=True),
            coarse=nn.Conv.load(ckpt.scope("coarse"), stride=2, padding=1, bias=True),
            out=nn.Linear.load(ckpt.scope("out"), "label c h w", over="c h w", bias=True),
        )

    def __call__(self, images: nt.Tensor) -> nt.Tensor:
        """images: (b, h=8, w=8, c=1), from 0 for paper to 1 for ink. Returns logits (b, label=10)."""
        x = nn.relu(self.fine(images))  # b h=8 w=8 c=32
        x = nn.relu(self.coarse(x))  # b h=4 w=4 c=64
        return self.out(x)


def classify(model: Digits, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = model(images)
    return {"logits": logits, "probabilities": logits.softmax("label")}


def program(ckpt: nt.Checkpoint) -> nt.Program:
    # The training scans were made by counting the dark pixels in each of 8×8 squares: an average over areas.
    preprocess = ImagePreprocess(height=8, width=8, channels=1, interpolation="box", invert=True)
    return nt.Program(
        Digits.load(ckpt),
        {"classify": nt.entry(classify, images=nt.spec("b h w c", b=1, h=8, w=8, c=1))},
        task=Classify(preprocess, labels=tuple("0123456789"), top=3),
        name="digits",
    )
