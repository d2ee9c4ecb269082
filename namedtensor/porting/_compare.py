"""Ours against a reference, one activation after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from namedtensor._errors import AxisError, InputError, fail
from namedtensor._tensor import Tensor
from namedtensor.porting._dump import Dump, Source, read
from namedtensor.porting._layout import layouts
from namedtensor.porting._match import Pair, call_of, paired, suggest
from namedtensor.porting._measure import Array, Measure, measure, observations

type Verdict = Literal["agrees", "differs", "other shape"]

# By the coarser type of the two: what a few hundred operations in it may do to a value.
_RTOL = {"bfloat16": 3e-2, "float16": 5e-3}
_RTOL_FLOAT32 = 1e-4


@dataclass(frozen=True)
class Row:
    """One pair of activations, ours and the reference's.

    - `axes`: the reference's stored axes in terms of ours, such as `b s (heads hd)`; None with "other shape".
    - `layouts`: how many orders and merges of our axes have the reference's shape; 1 where the order was given.
    - `measure`: how far they are apart; None with "other shape".
    - `input`: the same of the first tensor that the module was given, where both sides recorded it in shapes that fit.
    - `guessed`: nobody said that these two belong together.
    """

    name: str
    reference: str
    verdict: Verdict
    axes: str | None
    layouts: int
    measure: Measure | None
    input: Measure | None
    guessed: bool
    shapes: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        numbers = self.measure
        return {
            "name": self.name,
            "reference": self.reference,
            "verdict": self.verdict,
            "axes": self.axes,
            "max_abs": None if numbers is None else numbers.max_abs,
            "max_rel": None if numbers is None else numbers.max_rel,
            "cosine": None if numbers is None else numbers.cosine,
            "input": None if self.input is None else "agrees" if self.input.agrees else "differs",
            "guessed": self.guessed,
        }


@dataclass(frozen=True)
class Difference:
    """The first activation that differs.

    - `agreed`: how many of those compared before it agree, all of them; `last` is the last one's name, or None.
    - `between`: what of ours ran after `last` and before this, and has no counterpart in the reference.
    - `earlier`: the first module before it that was given something else and yet returned the same, as a normalisation
      does whose input is scaled; None where there is none.
    - `observations`: what can be said of the difference itself.
    """

    row: Row
    agreed: int
    last: str | None
    between: tuple[str, ...]
    earlier: str | None
    observations: tuple[str, ...]

    @property
    def name(self) -> str:
        """Our name of the activation."""
        return self.row.name

    def __str__(self) -> str:
        from namedtensor.porting._report import difference

        return difference(self)


@dataclass(frozen=True)
class Comparison:
    """What `nt.compare` found. `print` it for a report.

    - `rows`: every pair, in the order in which our modules returned; inner modules come before what they are part of.
    - `first_difference`: the first row that does not agree, and what is known of it; None where all agree.
    - `uncompared`, `unused`: activations of ours, and of the reference, that have no counterpart.
    """

    rows: tuple[Row, ...]
    first_difference: Difference | None
    uncompared: tuple[str, ...]
    unused: tuple[str, ...]
    # What to give as `names` for the same pairs, but for names that both sides share.
    names: Mapping[str, str]

    @property
    def agrees(self) -> bool:
        """Whether every pair does."""
        return self.first_difference is None

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        first = self.first_difference
        return {
            "agrees": self.agrees,
            "first_difference": None
            if first is None
            else {**first.row.to_json(), "last_agreeing": first.last, "observations": list(first.observations)},
            "rows": [row.to_json() for row in self.rows],
            "uncompared": list(self.uncompared),
            "unused": list(self.unused),
        }

    def report(self, *, every: bool = False) -> str:
        """The table and the first difference as text; all rows, or those around the first difference."""
        from namedtensor.porting._report import report

        return report(self, every=every)

    def __str__(self) -> str:
        return self.report()


def compare(
    ours: Source,
    reference: Source,
    names: Mapping[str, Any] | None = None,
    *,
    rtol: float | None = None,
    atol: float = 1e-7,
) -> Comparison:
    """Compare recorded activations by name, in the order in which they were made.

    - `ours`: what `nt.activations` returned, or the file that its `save` wrote.
    - `reference`: a file (safetensors as `dump_torch` writes it, .npz, or any other checkpoint), or a dict of arrays.
    - `names`: the reference's name for each of ours; a `*` stands for one part of a path. Where the reference's axes
      cannot be told from its shape, give their order too, in our names, `1` for one of size 1 that we lack:

            {"layers.*.attention": "model.layers.*.self_attn",
             "layers.*.attention.q": ("model.layers.*.self_attn.q_proj", "b s (heads hd)")}

      Names that are the same on both sides need no entry. Without `names` the pairs are guessed, from order, shapes,
      likeness of names, and equal values; the report says so, and `Comparison.names` holds the guess.
    - `rtol`: bound for `Measure.max_rel`, by default 1e-4, for bfloat16 3e-2 and for float16 5e-3.
    - `atol`: absolute differences up to it count as none.

    Raises `InputError` where a name does not exist on its side or nothing can be compared, `AxisError` where an order
    that was given does not fit, `CheckpointError` where a file is damaged.
    """
    for label, bound in (("rtol", rtol), ("atol", atol)):
        if bound is not None and not bound >= 0:
            fail(f"compare: {label}={bound} is no tolerance; a number from 0 is needed", kind=InputError)
    left, right = read(ours, "ours"), read(reference, "the reference")
    for name in left.order:
        left.tensor(name)
    pairs = paired(left, right, names)
    if not pairs:
        fail(
            "compare: no activation of ours has a counterpart in the reference",
            found={
                "ours": f"{len(left.order)}: {', '.join(left.order[:4])}, ...",
                "reference": f"{len(right.order)}: {', '.join(right.order[:4])}, ...",
            },
            fix='say which is which: names={"layers.*.mlp": "model.layers.*.mlp"}',
            kind=InputError,
        )
    rows = tuple(_row(pair, left, right, rtol, atol) for pair in pairs)
    ours_taken, theirs_taken = {row.name for row in rows}, {row.reference for row in rows}
    return Comparison(
        rows,
        _first(rows, left, right, rtol, atol),
        tuple(name for name in left.order if name not in ours_taken),
        tuple(name for name in right.order if name not in theirs_taken),
        suggest(pairs),
    )


def _row(pair: Pair, left: Dump, right: Dump, rtol: float | None, atol: float) -> Row:
    tensor, theirs = left.tensor(pair.ours), right.arrays[pair.reference]
    axes, fitting = _align(pair, tensor, theirs)
    found = None if axes is None else _closest(tensor, theirs, axes, rtol, atol)
    given = f"{call_of(pair.ours)}:input", f"{call_of(pair.reference)}:input"
    came_in = None
    if given[0] in left.axes and given[1] in right.arrays:
        first = left.tensor(given[0])
        same = pair.axes is not None and set(first.axes) == set(tensor.axes)
        try:
            candidates = [pair.axes] if same and pair.axes else layouts(first.sizes, right.arrays[given[1]].shape)
            came_in = _closest(first, right.arrays[given[1]], candidates, rtol, atol)
        except ValueError:
            came_in = None  # an order that fits the result need not fit what came in
    shapes = (_sizes(tensor), str(theirs.shape))
    verdict: Verdict = "other shape" if found is None else "agrees" if found[1].agrees else "differs"
    spec, numbers = found if found is not None else (None, None)
    return Row(
        pair.ours,
        pair.reference,
        verdict,
        spec,
        fitting,
        numbers,
        None if came_in is None else came_in[1],
        pair.guessed,
        shapes,
    )


def _align(pair: Pair, tensor: Tensor, theirs: Array) -> tuple[list[str] | None, int]:
    """Orders of our axes that have the reference's shape; the one that was given, if one was."""
    if pair.axes is None:
        found = layouts(tensor.sizes, theirs.shape)
        return found or None, len(found)
    stored = tensor.data(pair.axes).shape  # raises where it does not name our axes
    if stored != theirs.shape:
        fail(
            f"compare: {pair.reference!r} does not have the axes that were given",
            asked=f'"{pair.axes}"',
            found={"ours": tensor, "in that order": f"shape {stored}", "reference": f"shape {theirs.shape}"},
            kind=AxisError,
        )
    return [pair.axes], 1


def _closest(
    tensor: Tensor, theirs: Array, axes: list[str], rtol: float | None, atol: float
) -> tuple[str, Measure] | None:
    """The layout under which both are nearest, and how far apart they are in it."""
    bound = _tolerance(tensor, theirs) if rtol is None else rtol
    best: tuple[str, Measure] | None = None
    for spec in axes:
        found = measure(tensor.numpy(spec), theirs, bound, atol)
        if best is None or found.max_rel < best[1].max_rel:
            best = (spec, found)
        if found.agrees:
            break
    return best


def _tolerance(tensor: Tensor, theirs: Array) -> float:
    return max(_RTOL.get(str(dtype), _RTOL_FLOAT32) for dtype in (tensor.dtype, theirs.dtype))


def _first(rows: tuple[Row, ...], left: Dump, right: Dump, rtol: float | None, atol: float) -> Difference | None:
    at = next((i for i, row in enumerate(rows) if row.verdict != "agrees"), None)
    if at is None:
        return None
    row, last = rows[at], rows[at - 1].name if at else None
    seen: tuple[str, ...] = ()
    tensor, theirs = left.tensor(row.name), right.arrays[row.reference]
    if row.axes is not None:
        bound = _tolerance(tensor, theirs) if rtol is None else rtol
        # In single axes wherever the reference's shape allows: a sentence about heads says more than one about d.
        split = np.reshape(theirs, _split_shape(tensor, row.axes))
        names = " ".join(row.axes.replace("(", " ").replace(")", " ").replace("1", " ").split())
        seen = tuple(observations(tensor.numpy(names), split, names.split(), bound, atol))
    start = left.order.index(last) + 1 if last is not None else 0
    between = tuple(left.order[start : left.order.index(row.name)])
    earlier = next((other.name for other in rows[:at] if other.input is not None and not other.input.agrees), None)
    return Difference(row, at, last, between, earlier, seen)


def _split_shape(tensor: Tensor, axes: str) -> tuple[int, ...]:
    from namedtensor._axes import parse

    return tuple(tensor.size(name) for name in parse(axes).axes)


def _sizes(tensor: Tensor) -> str:
    return "(" + ", ".join(f"{name}={size}" for name, size in tensor.sizes.items()) + ")"
