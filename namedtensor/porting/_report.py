"""A comparison as text for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namedtensor.porting._compare import Comparison, Difference, Row
    from namedtensor.porting._measure import Measure

_BEFORE, _AFTER = 3, 5
_COLUMNS = ("ours", "reference", "axes", "max abs", "max rel", "cosine", "input", "verdict")
_NUMBERS = {"max abs", "max rel", "cosine"}


def report(comparison: Comparison, *, every: bool) -> str:
    """The table, what it leaves out, and the first difference."""
    rows = comparison.rows
    first, last = 0, len(rows)
    if not every:
        at = len(rows) - 1 if comparison.first_difference is None else comparison.first_difference.agreed
        first, last = max(at - _BEFORE, 0), min(at + _AFTER + 1, len(rows))
    lines = _table([_cells(row) for row in rows[first:last]])
    if first:
        lines.insert(1, f"... {_agree(first)}")
    if last < len(rows):
        rest = rows[last:]
        agreeing = sum(row.verdict == "agrees" for row in rest)
        lines.append(f"... {len(rest)} more, of which {_agree(agreeing)}")
    lines.append("")
    if comparison.first_difference is None:
        lines.append(f"all {len(rows)} activations that were compared agree")
    else:
        lines.append(str(comparison.first_difference))
    if any(row.guessed for row in rows):
        lines.append("which belongs to which was guessed (~)" + ("; to say it:" if comparison.names else ""))
        width = max(map(len, comparison.names), default=0)
        lines += [f'  "{ours}":{" " * (width - len(ours))} "{theirs}",' for ours, theirs in comparison.names.items()]
    for label, names in (("of ours", comparison.uncompared), ("of the reference", comparison.unused)):
        if names:
            shown = ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"not compared, {label}: {shown}")
    return "\n".join(lines)


def difference(found: Difference) -> str:
    """The first difference: where it is, what came before, what came in, what it looks like."""
    row = found.row
    lines = [f"first difference: {row.name} (reference: {row.reference})"]
    if row.guessed:
        lines.append("  the pair was guessed; make sure that the two belong together")
    if found.last is None:
        lines.append("  it is the first activation that was compared")
    else:
        lines.append(f"  {_agree(found.agreed)} before it, the last of them {found.last}")
    if row.measure is None:
        lines.append(f"  shapes do not fit: ours {row.shapes[0]}, reference {row.shapes[1]}")
        return "\n".join(lines)
    if row.input is None:
        lines.append("  what came in was not recorded on both sides, or does not have one shape")
    elif row.input.agrees:
        lines.append(f"  the first tensor that came in agrees ({_numbers(row.input)}): the cause lies inside it,")
        lines.append("  or in its other arguments")
    else:
        place = f"between {found.last} and it" if found.last else "before it"
        lines.append(f"  what came in differs already ({_numbers(row.input)}): the cause lies {place}")
    if found.earlier is not None:
        lines.append(
            f"  but {found.earlier} was given something else too, though it returned the same: look before that"
        )
    if found.between:
        shown = ", ".join(found.between[:4]) + (", ..." if len(found.between) > 4 else "")
        lines.append(f"  ran since then, without a counterpart in the reference: {shown}")
    lines.append(f"  {_numbers(row.measure)}, cosine {row.measure.cosine:.6f}, as {row.axes}")
    if row.layouts > 1:
        lines.append(f"  {row.layouts} orders of axes have that shape, this one is nearest; say which: (name, axes)")
    lines += [f"  seen: {fact}" for fact in found.observations]
    lines.append(f"  often: {_often(row.measure, found.observations)}")
    return "\n".join(lines)


def _often(numbers: Measure, seen: Sequence[str]) -> str:
    """What has caused differences of this kind before. A hint, and worded as one."""
    text = " ".join(seen)
    if "NaN" in text:
        return "a row that is masked entirely, a division by zero, or an overflow in a half type"
    if "opposite sign" in text or " times the reference" in text:
        return "a scale that is missing, applied twice, or inverted"
    if "another order" in text:
        return "axes split or merged with the outer and inner name swapped, or halves interleaved (rope)"
    if "a bias over" in text or "plus" in text:
        return "a bias that is missing or applied twice"
    if "multiple of the reference" in text:
        return "a normalisation: its epsilon, or the axes it runs over"
    if "differs only at" in text:
        return "positions, a mask or a window that is off by one; heads or groups in another order"
    if numbers.max_rel < 2e-2 and numbers.cosine > 0.999:
        return "an epsilon, gelu against its tanh form, or a step in half precision"
    return "a weight under the wrong name or transposed, another activation, a missing bias or residual"


def _cells(row: Row) -> list[str]:
    numbers = row.measure
    return [
        row.name,
        ("~ " if row.guessed else "") + row.reference,
        row.axes or f"{row.shapes[0]} / {row.shapes[1]}",
        "" if numbers is None else f"{numbers.max_abs:.2g}",
        "" if numbers is None else f"{numbers.max_rel:.2g}",
        "" if numbers is None else f"{numbers.cosine:.6f}",
        "" if row.input is None else "agrees" if row.input.agrees else "differs",
        row.verdict if row.verdict == "agrees" else row.verdict.upper(),
    ]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(_COLUMNS, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in [list(_COLUMNS), *rows]
    ]


def _numbers(found: Measure) -> str:
    return f"max abs {found.max_abs:.2g}, max rel {found.max_rel:.2g}"


def _agree(count: int) -> str:
    return f"{count} agree{'s' * (count == 1)}"
