"""A checkpoint as a table of its tensors, those that differ only in a layer's number folded into one row."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from namedtensor.cli import _output

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint, TensorInfo

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_LONG = 72


@dataclass
class Row:
    """Tensors with one shape and format whose names differ in numbers only."""

    name: str
    info: TensorInfo
    times: int = 1


def show(checkpoint: Checkpoint, *, every: bool) -> None:
    """Print a checkpoint for a person."""
    infos = {name: checkpoint.info(name) for name in checkpoint.names()}
    formats = sorted({info.format for info in infos.values()})
    parameters = sum(math.prod(info.shape) for info in infos.values())
    stored = sum(info.nbytes for info in infos.values())
    click.echo(
        f"{checkpoint.source}: {len(infos)} tensors, {_output.count(parameters)} parameters, "
        f"{_output.nbytes(stored)} as {', '.join(formats) or 'nothing'}"
    )
    for key, value in checkpoint.metadata.items():
        click.echo(f"  {_printable(key)}: {_short(value)}")
    if not infos:
        return
    click.echo()
    rows = [Row(name, info) for name, info in infos.items()] if every else fold(infos.items())
    made = _output.table("tensor", "", "format", "shape", "bytes", right="bytes")
    for row in rows:
        times = f"{row.times} ×" if row.times > 1 else ""
        shape = " × ".join(map(str, row.info.shape)) or "scalar"
        made.add_row(_printable(row.name), times, row.info.format, shape, _output.nbytes(row.info.nbytes * row.times))
    _output.print_table(made)


def document(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint for a machine."""
    infos = {name: checkpoint.info(name) for name in checkpoint.names()}
    return {
        "source": checkpoint.source,
        "parameters": sum(math.prod(info.shape) for info in infos.values()),
        "bytes": sum(info.nbytes for info in infos.values()),
        "metadata": {str(k): v if isinstance(v, str | int | float) else str(v) for k, v in checkpoint.metadata.items()},
        "tensors": [
            {
                "name": name,
                "shape": list(info.shape),
                "dtype": None if info.dtype is None else str(info.dtype),
                "format": info.format,
                "bytes": info.nbytes,
            }
            for name, info in infos.items()
        ],
    }


def fold(infos: Iterable[tuple[str, TensorInfo]]) -> list[Row]:
    """Rows for names such as `layers.0-15.norm.weight`, in the order of their first tensors by number."""
    groups: dict[Any, list[tuple[str, tuple[int, ...]]]] = {}
    of: dict[Any, Any] = {}
    for name, info in sorted(infos, key=lambda item: _natural(item[0])):
        key = (_NUMBER.sub("#", name), info.shape, info.format)
        groups.setdefault(key, []).append((name, tuple(int(n) for n in _NUMBER.findall(name))))
        of[key] = info
    rows = []
    for key, members in groups.items():
        numbers = [sorted({member[1][i] for member in members}) for i in range(len(members[0][1]))]
        if len(members) > 1 and math.prod(map(len, numbers)) == len(members):
            rows.append(Row(_spanning(members[0][0], numbers), of[key], len(members)))
        else:
            rows += [Row(name, of[key]) for name, _ in members]
    return rows


def _spanning(name: str, numbers: list[list[int]]) -> str:
    """The name with what each of its numbers runs over in the number's place."""
    ends = [0, *(match.end() for match in _NUMBER.finditer(name))]
    starts = [*(match.start() for match in _NUMBER.finditer(name)), len(name)]
    texts = [name[end:start] for end, start in zip(ends, starts, strict=True)]
    return "".join(a + b for a, b in itertools.zip_longest(texts, map(_span, numbers), fillvalue=""))


def _span(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    if values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return "{" + ",".join(map(str, values)) + "}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() and len(part) < 10 else (1, 0, part) for part in name.split(".")]


def _short(value: Any) -> str:
    text = _printable(str(value))
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
