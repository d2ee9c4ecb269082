"""The mini-language for axes: `b s d`, `(heads hd) d`, `kv group -> heads`, and `1` for an axis of size one.

A *layout* is how an array is stored, one group per stored axis. A group of several names is their product, the first
name varying slowest; `1` is a stored axis of size one that has no name.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from namedtensor._errors import AxisError, did_you_mean, fail, source_line

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


@dataclass(frozen=True)
class Layout:
    """A parsed spec: `groups[i]` are the names whose product is stored axis `i`."""

    spec: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group)

    def resolve(self, shape: Sequence[int], sizes: Mapping[str, int], what: str = "array") -> tuple[int, ...]:
        """Size of every axis in `axes`, from the stored `shape` and the sizes that were given.

        Raises `AxisError` where the rank differs, a group leaves two sizes open, or a product does not come out.
        """
        asked = f'"{self.spec}"' + "".join(f", {k}={v}" for k, v in sizes.items())
        sizes = {name: size(what, name, given) for name, given in sizes.items()}
        if len(shape) != len(self.groups):
            fail(
                f"{what}: the spec names {len(self.groups)} stored axes, the array has {len(shape)}",
                asked=asked,
                found={"stored": f"shape {tuple(shape)}"},
                fix=f"write one name or (group) for each of the {len(shape)} stored axes; '1' drops one of size 1",
            )
        unknown = [name for name in sizes if name not in self.axes]
        if unknown:
            fail(
                f"{what}: a size is given for {unknown[0]!r}, which the spec does not name",
                asked=asked,
                fix=did_you_mean(unknown[0], self.axes),
            )
        resolved: list[int] = []
        for position, (group, stored) in enumerate(zip(self.groups, shape, strict=True)):
            free = [name for name in group if name not in sizes]
            if len(group) == 1 and free:
                resolved.append(stored)
                continue
            known = math.prod(sizes[name] for name in group if name in sizes)
            shown = f"({' '.join(group)})" if len(group) > 1 else group[0] if group else "1"
            if len(free) > 1:
                fail(
                    f"{what}: the sizes of {' and '.join(map(repr, free))} cannot both be told from one stored axis",
                    asked=asked,
                    found={"stored": f"shape {tuple(shape)}, axis {position} is {shown}"},
                    fix=f"give all but one: {free[0]}=...",
                )
            if (known == 0 or stored % known) if free else known != stored:
                fail(
                    f"{what}: stored axis {position} has size {stored}, which is not {shown}"
                    + (f" with {', '.join(f'{n}={sizes[n]}' for n in group if n in sizes)}" if group else ""),
                    asked=asked,
                    found={"stored": f"shape {tuple(shape)}"},
                    fix="check the sizes against the checkpoint's config, and the order of the names",
                )
            resolved.extend(stored // known if name in free else sizes[name] for name in group)
        return tuple(resolved)


def size(what: str, name: str, value: Any) -> int:
    """The size that was given for an axis. Raises `AxisError` for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        fail(f"{what}: {name}={value!r} is not a size; a whole number from 0 is needed")
    return int(value)


def parse(spec: str) -> Layout:
    """Parse `(heads hd) d` into a `Layout`. Raises `AxisError` that quotes the spec and points at the place."""
    if not isinstance(spec, str):
        names = [str(part) for part in spec] if isinstance(spec, (list, tuple, set)) else ["b", "s", "d"]
        fail(
            f"axes are written as one string of names, not as {type(spec).__name__}",
            asked=repr(spec),
            fix=f'for example "{" ".join(names)}"',
        )
    return _parse(spec)


@functools.lru_cache(maxsize=4096)
def _parse(spec: str) -> Layout:
    groups: list[tuple[str, ...]] = []
    current: list[str] | None = None
    seen: set[str] = set()
    opened = 0
    for match in _TOKEN.finditer(spec):
        token = match.group(1)
        if token == "(" and current is None:
            current, opened = [], match.start(1)
        elif token == ")" and current is not None:
            groups.append(tuple(current))
            current = None
        elif token == "1" and current is None:
            groups.append(())
        elif _NAME.match(token):
            if token in seen:
                _bad(spec, f"axis {token!r} is named twice; an axis has one place", match.start(1))
            seen.add(token)
            if current is None:
                groups.append((token,))
            else:
                current.append(token)
        else:
            problem = {"(": "groups cannot nest", ")": "')' closes nothing"}.get(
                token, f"{token!r} is not an axis name"
            )
            _bad(spec, problem, match.start(1))
    if current is not None:
        _bad(spec, "'(' is never closed", opened)
    return Layout(spec, tuple(groups))


def names(spec: str, what: str = "axes") -> tuple[str, ...]:
    """Parse a spec that may hold plain names only: `heads hd`."""
    layout = parse(spec)
    if any(len(group) != 1 for group in layout.groups):
        fail(f"{what}: plain axis names are needed here, without groups", asked=f'"{spec}"', fix='for example "b s d"')
    return layout.axes


def arrow(spec: str, what: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parse `kv group -> heads` into the names on each side."""
    if not isinstance(spec, str) or spec.count("->") != 1:
        fail(f"{what}: expected names, an arrow, names", asked=repr(spec), fix='for example "kv group -> heads"')
    left, right = spec.split("->")
    return names(left, what), names(right, what)


def _bad(spec: str, problem: str, at: int) -> None:
    # The caret needs every character of the spec to be one column wide.
    shown = "".join(c if c.isprintable() else " " for c in spec)
    line = source_line()
    raise AxisError(f'bad axis spec: {problem}\n  "{shown}"\n   {" " * at}^' + (f"\n  at  {line}" if line else ""))
