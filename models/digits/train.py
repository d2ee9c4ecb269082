"""Train the digits model anew and write what the repository keeps: weights, a few scans, the held-out set.

    pip install -r requirements-train.lock
    python -m namedtensor.models.digits.train

The data are scikit-learn's `load_digits`, 1,797 scans of 8×8 pixels from 0 to 16. A fifth of them is held out: the
model never sees it, and the scans and the stored test set come from it. Every source of chance is seeded. Ends with
the accuracy on the held-out part.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The same arithmetic on every machine; the model is too small for an accelerator to matter.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.digits.model import WEIGHTS, Digits

HERE = Path(__file__).resolve().parent
HELD_OUT = HERE.parent.parent / "tests" / "models" / "digits_held_out.npz"
SEED = 0
EPOCHS = 80
BATCH = 64
LEARNING_RATE = 2e-3
DECAY = 1e-4
SCANS_PER_DIGIT = 2
# Scans are kept at eight times their size, for people to look at.
ENLARGED = 8

type Array = np.ndarray[Any, Any]


def new_model(key: jax.Array) -> Digits:
    """Weights as He et al. 2015 draw them: normal, of variance 2 / (inputs of a unit)."""
    keys = iter(jax.random.split(key, 3))

    def normal(axes: str, *shape: int, inputs: int) -> nt.Tensor:
        return nt.wrap(jax.random.normal(next(keys), shape) * (2 / inputs) ** 0.5, axes)

    return Digits(
        fine=nn.Conv(normal("out c kh kw", 32, 1, 3, 3, inputs=9), nt.zeros("out", out=32), padding=1),
        coarse=nn.Conv(normal("out c kh kw", 64, 32, 3, 3, inputs=288), nt.zeros("out", out=64), stride=2, padding=1),
        out=nn.Linear(normal("label c h w", 10, 64, 4, 4, inputs=1024), nt.zeros("label", label=10), over="c h w"),
    )


def loss(model: Digits, images: nt.Tensor, labels: nt.Tensor) -> jax.Array:
    """Mean cross-entropy of a batch, and weight decay. A pytree of tensors is all that jax.grad needs."""
    likelihood = (model(images).log_softmax("label") * nt.one_hot(labels, "label", 10)).sum("label").mean("b")
    weights = (model.fine.weight, model.coarse.weight, model.out.weight)
    return likelihood.array * -1 + DECAY * sum(jnp.sum(w.array**2) for w in weights)


@functools.partial(jax.jit, donate_argnums=(0, 1, 2))
def step(
    model: Digits, mean: Digits, square: Digits, count: Array, rate: Array, images: nt.Tensor, labels: nt.Tensor
) -> tuple[Digits, Digits, Digits]:
    """One step of Adam (Kingma and Ba 2015)."""
    gradient = jax.grad(loss)(model, images, labels)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g**2, square, gradient)

    def moved(weight: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        return weight - rate * (m / (1 - 0.9**count)) / (jnp.sqrt(s / (1 - 0.999**count)) + 1e-8)

    return jax.tree.map(moved, model, mean, square), mean, square


def batches(images: Array, labels: Array) -> Iterator[tuple[nt.Tensor, nt.Tensor]]:
    """Shuffled batches of every epoch, each moved by at most one pixel, as a scan may be."""
    random = np.random.RandomState(SEED)
    for _ in range(EPOCHS):
        order = random.permutation(len(images))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[first : first + BATCH]
            down, right = random.randint(0, 3, 2)
            moved = np.pad(images[chosen], ((0, 0), (1, 1), (1, 1)))[:, down : down + 8, right : right + 8]
            yield nt.wrap(moved, "b h w").broadcast(c=1), nt.wrap(labels[chosen], "b")


def train(images: Array, labels: Array) -> Digits:
    """images: (n, 8, 8) from 0 to 1; labels: (n,)."""
    model = new_model(jax.random.key(SEED))
    mean, square = (jax.tree.map(jnp.zeros_like, model) for _ in range(2))
    steps = EPOCHS * (len(images) // BATCH)
    for count, batch in enumerate(batches(images, labels)):
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * count / steps))
        model, mean, square = step(model, mean, square, np.float32(count + 1), np.float32(rate), *batch)
    return model


def save(model: Digits) -> None:
    tensors = {
        f"{name}.{part}": np.asarray(getattr(getattr(model, name), part).array)
        for name in ("fine", "coarse", "out")
        for part in ("weight", "bias")
    }
    save_file(tensors, HERE / WEIGHTS)


def write_scans(pixels: Array, labels: Array, numbers: Array) -> None:
    """The first few held-out scans of each digit, dark on light, as DIGIT-NUMBER.png; pixels: (n, 8, 8), 0 to 16."""
    for digit in range(10):
        for place in np.flatnonzero(labels == digit)[:SCANS_PER_DIGIT]:
            paper = 255 - np.round(pixels[place] / 16 * 255)
            scan = np.kron(paper, np.ones((ENLARGED, ENLARGED))).astype(np.uint8)
            Image.fromarray(scan).save(HERE / "scans" / f"{digit}-{numbers[place]:04}.png", optimize=True)


def main() -> None:
    data = load_digits()
    pixels, labels = data.images.astype(np.uint8), data.target.astype(np.int32)
    known, held = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=SEED, stratify=labels)
    model = train(pixels[known].astype(np.float32) / 16, labels[known])
    save(model)
    write_scans(pixels[held], labels[held], held)
    np.savez_compressed(HELD_OUT, pixels=pixels[held], labels=labels[held].astype(np.uint8))

    images = nt.wrap(pixels[held].astype(np.float32) / 16, "b h w").broadcast(c=1)
    right = model(images).argmax("label").numpy("b") == labels[held]
    print(f"{right.sum()} of {len(held)} held-out scans are right: {right.mean():.2%}")


if __name__ == "__main__":
    main()
