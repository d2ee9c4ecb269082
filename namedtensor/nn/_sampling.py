"""From logits to the next token: filters that leave ids out, and the draw.

A filter takes logits over `vocab` and any other axes, floating, and returns them with -inf where an id is left out.
Its setting is a number or a scalar tensor: as a tensor it is an input of the program, and one program serves all
settings. Applied in the order of this file, they give what transformers' `generate` gives.
"""

from __future__ import annotations

import math

from namedtensor import random
from namedtensor._control import cond
from namedtensor._join import where
from namedtensor._tensor import Tensor

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
    """The `k` largest logits, and all that equal the smallest of them (arXiv 1805.04833). 0, or more than there are
    ids, leaves none out."""
    return _above(logits, _top_k_bound(logits.sort(axis), k, axis))


def top_p(logits: Tensor, p: Setting, axis: str = "vocab") -> Tensor:
    """The fewest of the likeliest ids whose probabilities sum to `p` or more (nucleus sampling, arXiv 1904.09751).

    At least one id stays, and all that are as likely as the last one that does. 1 leaves none out.
    """
    return _above(logits, _top_p_bound(logits.sort(axis), p, axis))


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
    The settings are scalar tensors, top_k integer and the others f32; 0, 0, 1 and 0 turn them off. Ids are sorted
    only where top-k or top-p is on, and at temperature 0 nothing is computed but the largest.
    """

    def drawn(logits: Tensor) -> Tensor:
        warm = _temperature(logits, temperature)
        kept = cond((top_k > 0) | (top_p < 1), sorted_filters, lambda x: x, warm)
        return random.categorical(key, _min_p(kept, min_p, axis), axis)

    def sorted_filters(logits: Tensor) -> Tensor:
        ranked = logits.sort(axis)
        bound = _top_k_bound(ranked, top_k, axis)
        kept = _above(ranked, bound)
        return _above(logits, where(top_p < 1, _top_p_bound(kept, top_p, axis), bound))

    return cond(temperature > 0, drawn, lambda x: greedy(x, axis), logits)


_temperature, _min_p = temperature, min_p


def _setting(value: Setting, logits: Tensor) -> Setting:
    return value.cast(logits.dtype) if isinstance(value, Tensor) else value


def _above(logits: Tensor, bound: Tensor) -> Tensor:
    return logits.mask(logits >= bound, -math.inf)


def _top_k_bound(ranked: Tensor, k: Setting, axis: str) -> Tensor:
    """The smallest logit that stays, of logits in ascending order."""
    size = ranked.size(axis)
    if not isinstance(k, Tensor):
        return ranked.index(axis, int(size - k) if 0 < k < size else 0)
    return ranked.index(axis, where((k > 0) & (k < size), size - k, 0))


def _top_p_bound(ranked: Tensor, p: Setting, axis: str) -> Tensor:
    """The smallest logit that stays, of logits in ascending order."""
    mass = ranked.softmax(axis).cumsum(axis)
    # Summed from the unlikely end, as transformers does, an id goes while the sum up to it is within 1 - p.
    gone = (mass <= 1 - _setting(p, ranked)).sum(axis)
    return ranked.gather(axis, gone.minimum(ranked.size(axis) - 1))
