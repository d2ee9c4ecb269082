"""Which of our activations is which of the reference's."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from namedtensor import _axes
from namedtensor._errors import InputError, closest, fail
from namedtensor.porting._dump import Dump
from namedtensor.porting._layout import layouts

# A path as `activations` names it, and what may follow: the number of the call, the place in a tuple or dict.
_NAME = re.compile(r"(?P<path>(?:\(model\)|[^#\[:])*)(?P<call>#\d+)?(?P<key>\[.*)?\Z", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """One of our activations, the reference's, and the reference's axes in terms of ours where they were given."""

    ours: str
    reference: str
    axes: str | None = None
    guessed: bool = False


def paired(ours: Dump, reference: Dump, names: Mapping[str, Any] | None) -> list[Pair]:
    """Pairs in the order of ours: what `names` says, and names that are the same; all guessed where it is None."""
    if names is None:
        return _completed(guess(ours, reference), ours, reference)
    rules = [_Rule.parse(pattern, target) for pattern, target in names.items()]
    pairs = []
    for name in ours.order:
        for rule in rules:
            pair = rule.apply(name, reference)
            if pair is not None:
                rule.used.append(name)
                pairs.append(pair)
                break
        else:
            if name in reference.arrays:
                pairs.append(Pair(name, name))
    for rule in rules:
        rule.check(ours, reference)
    return pairs


class _Rule:
    """`layers.*.attention` is `model.layers.*.self_attn`; a star stands for one part of a path, between dots."""

    def __init__(self, pattern: str, target: str, axes: str | None) -> None:
        self.pattern, self.target, self.axes = pattern, target, axes
        self.used: list[str] = []
        self.missing: list[str] = []
        self._regex = re.compile(r"([^.#\[:]+)".join(map(re.escape, pattern.split("*"))))

    @classmethod
    def parse(cls, pattern: str, target: Any) -> _Rule:
        axes = None
        if isinstance(target, (tuple, list)) and len(target) == 2:
            target, axes = target
        if not isinstance(target, str) or not isinstance(axes, str | None):
            fail(
                f"compare: {pattern!r} is mapped to something that is not a name",
                found={"target": target},
                fix='a name, "model.layers.*.mlp", or a name and the order of its axes, ("...", "b s (heads hd)")',
                kind=InputError,
            )
        if target.count("*") > pattern.count("*"):
            fail(
                f"compare: {target!r} has more stars than {pattern!r}, so it is not told what they are", kind=InputError
            )
        if axes is not None:
            _axes.parse(axes)
        return cls(pattern, target, axes)

    def apply(self, name: str, reference: Dump) -> Pair | None:
        path, call, key = _parts(name)
        whole = self.translate(name)
        target = self.translate(path) if whole is None else whole
        if target is None:
            return None
        # What the pattern leaves open follows the name; of several results the first stands for all.
        endings = [""] if whole is not None else [call + key, call] if key in ("", "[0]") else [call + key]
        for ending in [*endings, *(f"{ending}[0]" for ending in endings if not ending.endswith("]"))]:
            if target + ending in reference.arrays:
                return Pair(name, target + ending, self.axes)
        if key in ("", "[0]"):
            self.missing.append(target)
        return None

    def translate(self, name: str) -> str | None:
        """The target with what the stars of the pattern are in `name`; None where the pattern is another."""
        match = self._regex.fullmatch(name)
        if match is None:
            return None
        stars = iter(match.groups())
        return re.sub(r"\*", lambda _: next(stars), self.target)

    def check(self, ours: Dump, reference: Dump) -> None:
        """Raise where the rule found nothing, so that a slip of the pen does not pass for agreement."""
        if self.missing:
            close = closest(self.missing[0], reference.order)
            fail(
                f"compare: the reference has no {self.missing[0]!r}",
                asked=f'"{self.pattern}": "{self.target}"',
                found={"reference": f"{reference.source}, {len(reference.order)} activations"},
                fix=f"did you mean {close!r}?" if close else None,
                kind=InputError,
            )
        if not self.used:
            close = closest(self.pattern, [template(name) for name in ours.order])
            fail(
                f"compare: none of our activations is called {self.pattern!r}",
                found={"ours": f"{ours.source}, {len(ours.order)} activations"},
                fix=f"did you mean {close!r}?" if close else None,
                kind=InputError,
            )


def guess(ours: Dump, reference: Dump) -> list[Pair]:
    """Pairs in one order for both sides, by shape, by name, and by values that are the same in whatever order."""
    left = [(name, ours.arrays[name], ours.axes.get(name, ())) for name in ours.order]
    right = [(name, reference.arrays[name]) for name in reference.order]
    marks = [_mark(array) for _, array in right]

    @functools.lru_cache(maxsize=100_000)
    def fits(sizes: tuple[tuple[str, int], ...], shape: tuple[int, ...]) -> bool:
        return bool(layouts(dict(sizes), shape))

    # The best alignment of two sequences, as in the longest common subsequence, with a score for each pair.
    best = np.zeros((len(left) + 1, len(right) + 1))
    scores = np.zeros((len(left), len(right)))
    for i in reversed(range(len(left))):
        name, array, axes = left[i]
        mark, sizes = _mark(array), tuple(zip(axes, array.shape, strict=True))
        for j in reversed(range(len(right))):
            if fits(sizes, right[j][1].shape):
                scores[i, j] = _likeness(name, right[j][0]) + 2 * _same(mark, marks[j])
            best[i, j] = max(best[i + 1, j], best[i, j + 1])
            if scores[i, j] >= _ENOUGH:
                best[i, j] = max(best[i, j], scores[i, j] + best[i + 1, j + 1])
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if best[i, j] == best[i + 1, j]:
            i += 1
        elif best[i, j] == best[i, j + 1]:
            j += 1
        else:
            pairs.append(Pair(left[i][0], right[j][0], guessed=True))
            i, j = i + 1, j + 1
    return pairs


def _completed(pairs: list[Pair], ours: Dump, reference: Dump) -> list[Pair]:
    """The pairs, and what they imply for other layers, where values differ and names alone say too little."""
    known = {pair.ours: pair for pair in pairs}
    taken = {pair.reference for pair in pairs}
    rules = [_Rule(pattern, target, None) for pattern, target in suggest(pairs).items()]
    for name in ours.order:
        for rule in rules:
            pair = None if name in known else rule.apply(name, reference)
            if pair is not None and pair.reference not in taken:
                known[name] = Pair(name, pair.reference, guessed=True)
                taken.add(pair.reference)
    return [known[name] for name in ours.order if name in known]


# Without equal values, a pair needs the same numbers in its path and some likeness of names.
_ENOUGH = 0.75


def suggest(pairs: Sequence[Pair]) -> dict[str, str]:
    """Names to give to `compare`, with a star for the numbers of layers wherever that says the same."""
    known = {pair.ours: pair.reference for pair in pairs}
    found: dict[str, str] = {}
    for pair in pairs:
        if pair.ours == pair.reference:
            continue
        pattern, target = _starred(pair)
        rule = _Rule(pattern, target, None)
        holds = all(rule.translate(name) in (None, other) for name, other in known.items())
        if holds:
            found[pattern] = target
        elif all(_Rule(p, t, None).translate(pair.ours) is None for p, t in found.items()):
            found[pair.ours] = pair.reference
    return found


def call_of(name: str) -> str:
    """The name of the call that an activation is a result of: without the place in a tuple or dict."""
    path, call, _ = _parts(name)
    return path + call


def template(name: str) -> str:
    """`layers.*.mlp` for `layers.3.mlp`."""
    path, call, key = _parts(name)
    return ".".join("*" if part.isdigit() else part for part in path.split(".")) + call + key


def _starred(pair: Pair) -> tuple[str, str]:
    path, call, key = _parts(pair.ours)
    numbers = [part for part in path.split(".") if part.isdigit()]
    other, other_call, other_key = _parts(pair.reference)
    left, parts = list(numbers), other.split(".")
    for i, part in enumerate(parts):
        if left and part == left[0]:
            parts[i] = "*"
            left.pop(0)
    if left:
        return pair.ours, pair.reference
    pattern = ".".join("*" if part.isdigit() else part for part in path.split("."))
    return pattern + call + key, ".".join(parts) + other_call + other_key


def _parts(name: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        return name, "", ""
    return match["path"], match["call"] or "", match["key"] or ""


def _mark(array: np.ndarray[Any, Any]) -> tuple[float, ...]:
    """Numbers that do not depend on the order of the values."""
    if not array.size:
        return (0.0, 0.0, 0.0)
    wide = np.nan_to_num(array.astype(np.float64), posinf=0, neginf=0)
    return float(np.mean(wide)), float(np.mean(np.abs(wide))), float(np.sqrt(np.mean(wide * wide)))


def _same(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    scale = max(left[1], right[1])
    return all(abs(a - b) <= 1e-4 * scale for a, b in zip(left, right, strict=True))


@functools.lru_cache(maxsize=1_000_000)
def _likeness(ours: str, reference: str) -> float:
    """From 0 to 1: half for the numbers of layers, half for the last part of the name."""
    left, right = _parts(ours), _parts(reference)
    numbers = [[part for part in path.split(".") if part.isdigit()] for path in (left[0], right[0])]
    layers = bool(numbers[0]) and numbers[0] == numbers[1][: len(numbers[0])]
    if bool(numbers[0]) != bool(numbers[1]) or left[1] != right[1]:
        return 0.0
    alike = difflib.SequenceMatcher(None, _last(left[0]), _last(right[0])).ratio()
    return 0.5 * (layers or not numbers[0]) + 0.5 * alike


def _last(path: str) -> str:
    return next((part for part in reversed(path.split(".")) if not part.isdigit()), path)
