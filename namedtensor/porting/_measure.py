"""How far two arrays are apart, and what their difference looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# What fills masked places is no measure of anything: -inf, or the lowest value of the type.
_HUGE = 1e30


@dataclass(frozen=True)
class Measure:
    """How far ours is from the reference.

    - `max_abs`: the largest absolute difference.
    - `max_rel`: the largest difference relative to the reference's value plus the mean of all its absolute values, so
      that neither values near zero nor a few huge ones decide.
    - `cosine`: of the angle between both, taken as vectors.
    - `agrees`: every difference is at most `atol`, or at most `rtol` in the sense of `max_rel`.
    """

    max_abs: float
    max_rel: float
    cosine: float
    agrees: bool


def measure(ours: Array, reference: Array, rtol: float, atol: float) -> Measure:
    """Compare two arrays of one shape. What is infinite, or NaN, must be so on both sides."""
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    different = distance(a, b)
    allowed = scale(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(different == 0, 0.0, different / allowed)
    inside = (different <= atol) | (relative <= rtol)
    finite = np.isfinite(a) & np.isfinite(b) & (np.abs(b) < _HUGE) & (np.abs(a) < _HUGE)
    x, y = np.where(finite, a, 0), np.where(finite, b, 0)
    lengths = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    cosine = float(np.sum(x * y)) / lengths if lengths else float(bool(np.array_equal(x, y)))
    largest = float(different.max()) if different.size else 0.0
    return Measure(largest, float(relative.max()) if relative.size else 0.0, cosine, bool(inside.all()))


def distance(a: Array, b: Array) -> Array:
    """Absolute differences; 0 where both are NaN, the same infinity, or both as low or high as fills a mask."""
    with np.errstate(invalid="ignore", over="ignore"):
        different = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        same |= (np.abs(a) >= _HUGE) & (np.abs(b) >= _HUGE) & (np.sign(a) == np.sign(b))
    different = np.where(np.isnan(different), np.inf, different)
    return np.where(same, 0.0, different)


def scale(b: Array) -> Array:
    """What a difference is measured against: |b| and the mean of all |b|."""
    usual = np.where(np.isfinite(b) & (np.abs(b) < _HUGE), np.abs(b), 0)
    return usual + (usual.mean() if usual.size else 0.0)


def observations(ours: Array, reference: Array, axes: Sequence[str], rtol: float, atol: float) -> list[str]:
    """What can be said of how two arrays differ, in sentences; each is a fact about these numbers.

    `rtol` and `atol` say which values are the same, where it is looked for the same ones in another order.
    """
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(a).all() and np.isfinite(b).all():
        return [f"ours has {np.count_nonzero(~np.isfinite(a))} values that are NaN or infinite, the reference has none"]
    different = distance(a, b)
    found = _places(different, axes)
    if not np.isfinite(b).all() or max(np.abs(a).max(), np.abs(b).max()) >= _HUGE:
        return found

    def explains(guess: Array) -> bool:
        # What it leaves must be next to nothing beside what there was: small differences are near any guess.
        return bool(distance(a, guess).max() <= 0.05 * different.max())

    if not np.any(a):
        found.append("ours is all zeros")
    elif explains(-b):
        found.append("ours is the reference with the opposite sign")
    elif np.any(b) and explains(b * (factor := np.sum(a * b) / np.sum(b * b))):
        found.append(f"ours is {factor:.6g} times the reference")
    elif explains(b + np.mean(a - b)):
        found.append(f"ours is the reference plus {np.mean(a - b):.6g}")
    else:
        found.extend(_along(a, b, axes, explains))
    if a.size > 1 and np.all(np.abs(np.sort(a, None) - np.sort(b, None)) <= np.sort(scale(b), None) * rtol + atol):
        found.append("both have the same values in another order")
    return found


def _places(different: Array, axes: Sequence[str]) -> list[str]:
    """Along which axes all that differs lies in a part, beside which the rest is as good as equal."""
    found = []
    for i, name in enumerate(axes):
        largest = different.max(axis=tuple(j for j in range(different.ndim) if j != i))
        at = np.flatnonzero(largest > 0.01 * largest.max())
        if 0 < len(at) < len(largest):
            run = len(at) > 1 and at[-1] - at[0] == len(at) - 1
            where = f"{at[0]} to {at[-1]}" if run else ", ".join(map(str, at[:8])) + ", ..." * (len(at) > 8)
            found.append(f"it differs only at {where} along {name}, of {len(largest)}")
    return found


def _along(a: Array, b: Array, axes: Sequence[str], explains: Any) -> list[str]:
    """Differences that depend on one axis only, and factors that do not depend on one."""
    found = []
    for i, name in enumerate(axes):
        others = tuple(j for j in range(a.ndim) if j != i)
        if a.shape[i] < 2 or a.size == a.shape[i]:
            continue
        if explains(b + np.mean(a - b, axis=others, keepdims=True)):
            found.append(f"ours minus the reference depends on {name} alone, as a bias over {name} does")
        square = np.sum(b * b, axis=i, keepdims=True)
        factor = np.sum(a * b, axis=i, keepdims=True) / np.where(square == 0, 1, square)
        if explains(b * factor):
            low, high = float(factor.min()), float(factor.max())
            found.append(f"along {name} ours is a multiple of the reference, {low:.6g} to {high:.6g} times")
    return found
