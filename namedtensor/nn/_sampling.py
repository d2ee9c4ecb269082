"""From logits to the next token: filters that leave ids out, and the draw.

A filter takes logits over `vocab` and any other axes, floating, and returns them with -inf where an id is left out.
Its setting is a number or a scalar tensor: as a tensor it is an input of the program, and one program serves all
settings. Applied in the order of this file, they give what transformers' `generate` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from namedtensor import random
from namedtensor._control import cond, scan
from namedtensor._join import where
from namedtensor._tensor import Tensor, wrap

type Setting = float | int | Tensor


def greedy(logits: Tensor, axis: str = "vocab") -> Tensor:
    """The id with the largest logit, int32; the lowest such id. Axes: those of logits without `axis`."""
    return logits.argmax(axis)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: Setting) -> Tensor:
    """Logits of ids that occurred divided by `penalty`, or multiplied by it where negative (arXiv 1909.05858,
    section 4.1).

    seen: bool, true for ids that occurred, with axes of logits. A penalty of 1 changes nothing.
    """
    penalty = _setting(penalty, logits)
    return where(seen, where(logits < 0, logits * penalty, logits / penalty), logits)


def temperature(logits: Tensor, value: Setting) -> Tensor:
    """Logits divided by the temperature, which is above 0: below 1 sharpens, above 1 flattens the distribution."""
    return logits / _setting(value, logits)


def top_k(logits: Tensor, k: Setting, axis: str = "vocab") -> Tensor:
    """The `k` largest logits, and all that equal the smallest of them (arXiv 1805.04833).

    k: int32. 0, or more than there are ids, leaves none out.
    """
    k = k.cast("int32") if isinstance(k, Tensor) else wrap(np.int32(min(k, logits.size(axis))), "")
    return _largest(logits, axis, lambda at_least: (at_least.sum(axis) >= k) | (k <= 0))


def top_p(logits: Tensor, p: Setting, axis: str = "vocab") -> Tensor:
    """The fewest of the likeliest ids whose probabilities sum to `p` or more (nucleus sampling, arXiv 1904.09751).

    At least one id stays, and all that are as likely as the last one that does. 1 leaves none out.
    """
    probability = logits.softmax(axis)
    # As transformers does: an id goes while it and all less likely ones have no more than 1 - p together.
    rest = 1 - _setting(p, logits)
    return _largest(logits, axis, lambda at_least: where(at_least, 0.0, probability).sum(axis) <= rest)


def min_p(logits: Tensor, p: Setting, axis: str = "vocab") -> Tensor:
    """Ids at least `p` times as likely as the likeliest one (arXiv 2407.01082). 0 leaves none out."""
    probability = logits.softmax(axis)
    return logits.mask(probability >= probability.max(axis) * _setting(p, logits), -math.inf)


def sample(
    key: Tensor,
    logits: Tensor,
    *,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    axis: str = "vocab",
) -> Tensor:
    """The next id, int32: greedy at temperature 0, otherwise drawn after temperature, top-k, top-p and min-p.

    key: see `nt.random`. Axes: those of logits without `axis`, each element drawn on its own.
    The settings are scalar tensors, top_k int32 and the others f32; 0, 0, 1 and 0 turn them off, and what is off is
    not computed.
    """

    def drawn(logits: Tensor) -> Tensor:
        warm = _temperature(logits, temperature)
        few = cond(top_k > 0, lambda x: _top_k(x, top_k, axis), lambda x: x, warm)
        likely = cond(top_p < 1, lambda x: _top_p(x, top_p, axis), lambda x: x, few)
        return random.categorical(key, _min_p(likely, min_p, axis), axis)

    token: Tensor = cond(temperature > 0, drawn, lambda x: greedy(x, axis), logits)
    return token


_temperature, _top_k, _top_p, _min_p = temperature, top_k, top_p, min_p


def _setting(value: Setting, logits: Tensor) -> Setting:
    return value.cast(logits.dtype) if isinstance(value, Tensor) else value


def _largest(logits: Tensor, axis: str, enough: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits down to the highest bound that leaves enough of them, -inf below.

    `enough` judges a set, given as true for every logit at or above some bound; once true, it stays so as the bound
    falls. The bound is found bit by bit: 32 passes over the logits, a tenth of what sorting 128,000 of them takes on
    a CPU. At least the largest stay.
    """
    axes = " ".join(logits.axes)
    bits = lax.bitcast_convert_type(logits.cast("float32").data(axes), jnp.uint32)
    # Unsigned integers in the order of the floats that they are the bits of.
    order = wrap(jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)), axes)

    def step(bound: Tensor, bit: Tensor) -> tuple[Tensor, None]:
        higher = bound | bit
        return where(enough(order >= higher), higher, bound), None

    weights = wrap(np.uint32(1) << np.arange(31, -1, -1, dtype=np.uint32), "bit")
    best = order.max(axis)
    bound, _ = scan(step, best & 0, weights, axis="bit")
    return logits.mask(order >= bound.minimum(best), -math.inf)
