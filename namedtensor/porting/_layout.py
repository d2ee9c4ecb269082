"""In which order, and with which axes merged, another array holds the values of a tensor with named axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

# Of arrays with many equal sizes there are more layouts than anyone would want to see tried.
LIMIT = 24


def layouts(sizes: Mapping[str, int], shape: Sequence[int]) -> list[str]:
    """Specs, such as `b s (heads hd)`, under which axes of these sizes have this shape; the stored order comes first.

    Axes of size one, which can stand anywhere, are put at the first place that will have them. At most `LIMIT`.
    """
    units = [name for name, size in sizes.items() if size == 1]
    wide = {name: size for name, size in sizes.items() if size != 1}
    places = [i for i, size in enumerate(shape) if size != 1]
    found: list[str] = []
    if math.prod(shape) != math.prod(sizes.values()) or len(places) > len(wide):
        return found
    for groups in islice(_assign(wide, [shape[i] for i in places]), LIMIT):
        parts: list[tuple[str, ...]] = [()] * len(shape)
        for place, group in zip(places, groups, strict=True):
            parts[place] = group
        left = list(units)
        for i, size in enumerate(shape):
            if size == 1 and left:
                parts[i] = (left.pop(0),)
        if left and not parts:
            continue  # a scalar has no place for them
        if left:
            parts[0] = (*left, *parts[0])
        found.append(" ".join(_shown(part) for part in parts))
    return found


def _shown(group: tuple[str, ...]) -> str:
    if not group:
        return "1"
    return group[0] if len(group) == 1 else f"({' '.join(group)})"


def _assign(sizes: Mapping[str, int], shape: Sequence[int]) -> Iterator[list[tuple[str, ...]]]:
    """Every way to give each stored axis an ordered group of names whose sizes multiply to it, using all of them."""
    if not shape:
        if not sizes:
            yield []
        return
    for group in _groups(sizes, shape[0]):
        rest = {name: size for name, size in sizes.items() if name not in group}
        for others in _assign(rest, shape[1:]):
            yield [group, *others]


def _groups(sizes: Mapping[str, int], product: int) -> Iterator[tuple[str, ...]]:
    for name, size in sizes.items():
        if size == product:
            yield (name,)
        elif size and product and product % size == 0:
            rest = {other: n for other, n in sizes.items() if other != name}
            for others in _groups(rest, product // size):
                yield (name, *others)
