"""Parameters and inputs that anyone can regenerate from their names, so that large weights need not be stored.

Only numpy is needed: the reference scripts load these values into PyTorch, the tests load them into the model.
`np.random.RandomState` is used because its stream is frozen by numpy's compatibility policy (NEP 19), which newer
generators do not promise.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def state(name: str, seed: int = 0) -> np.random.RandomState:
    """The random stream that belongs to `name`."""
    return np.random.RandomState([zlib.crc32(name.encode()), seed])


def normal(name: str, shape: Sequence[int], std: float = 1.0, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    """Float32 normal values of the given shape."""
    return (mean + std * state(name, seed).standard_normal(tuple(shape))).astype(np.float32)


def uniform(name: str, shape: Sequence[int], low: float, high: float, seed: int = 0) -> np.ndarray:
    """Float32 values spread evenly over [low, high)."""
    return state(name, seed).uniform(low, high, tuple(shape)).astype(np.float32)


def convolutional(name: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """One float32 parameter or buffer of a convolutional network with batch normalisation.

    Kernels get a standard deviation of sqrt(2 / fan_in), which keeps the signal's size through ReLU layers; running
    means and variances, scales and shifts are far from 0 and 1, so that leaving one of them out shows.
    """
    if name.endswith("running_var"):
        return uniform(name, shape, 0.5, 2.0, seed)
    if name.endswith(("running_mean", "bias")):
        return normal(name, shape, 0.2, seed=seed)
    if len(shape) == 1:
        return uniform(name, shape, 0.65, 1.2, seed)
    fan_in = int(np.prod(shape[1:]))
    return normal(name, shape, (2.0 / fan_in) ** 0.5, seed=seed)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A float32 image (channels=3, height, width), smooth with some noise, roughly in [-2, 2]."""
    random = state("image", seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(2 * np.pi * (fy * y / height + fx * x / width) + phase) for fy, fx, phase in random.uniform(0, 4, (3, 3))
    ]
    return (np.stack(waves) + 0.3 * random.standard_normal((3, height, width))).astype(np.float32)
