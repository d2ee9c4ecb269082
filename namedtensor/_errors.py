"""Errors that say what was asked, what was found, where in the model, and what to do."""

import difflib
import itertools
import linecache
import os
import sys
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NoReturn

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
MODELS = (os.path.join(os.path.dirname(PACKAGE[:-1]), "models") + os.sep, os.path.join(PACKAGE, "models") + os.sep)
# The standard library: its frames are never the line to look at.
_LIBRARY = os.path.dirname(os.__file__) + os.sep


class NamedTensorError(Exception):
    """Base of every error that the project raises on purpose. `str(error)` is the whole report, for a person."""

    @property
    def headline(self) -> str:
        """The report's first line, for a log or a command line."""
        return str(self).partition("\n")[0]


class AxisError(NamedTensorError, ValueError):
    """Names or sizes of axes do not fit the operation."""


class DTypeError(NamedTensorError, TypeError):
    """Element types do not fit the operation; nothing is promoted behind your back."""


class CheckpointError(NamedTensorError, ValueError):
    """A checkpoint is damaged, hostile, or does not hold what was asked of it."""


class ModelError(NamedTensorError, ValueError):
    """A model, its configuration or its program is not something that can be built."""


class InputError(NamedTensorError, ValueError):
    """An argument given when a model is run does not fit the model."""


def describe(value: Any) -> str:
    """One line for an operand: `(b=2, s=4) float32` for a tensor, the type and value for anything else."""
    axes, array = getattr(value, "axes", None), getattr(value, "_array", None)
    if isinstance(axes, tuple) and array is not None:
        shape = tuple(getattr(array, "shape", ()))
        if len(shape) == len(axes):
            inside = ", ".join(f"{name}={size}" for name, size in zip(axes, shape, strict=True))
        else:
            inside = f"{', '.join(axes)}; array of shape {shape}"
        return f"({inside}) {getattr(array, 'dtype', type(array).__name__)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "jax array" if type(value).__module__.startswith("jax") else type(value).__name__
        return f"{kind} of shape {tuple(value.shape)}, {value.dtype}, without axis names"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that the writer most likely meant, or None."""
    pool = list(candidates)
    if len(pool) == 1:
        return pool[0]
    found = difflib.get_close_matches(name, pool, n=1, cutoff=0.5)
    if found:
        return found[0]
    return next((c for c in pool if c.startswith(name) or name.startswith(c)), None)


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    guess = closest(name, candidates)
    return None if guess is None else f"did you mean {guess!r}?"


def source_line() -> str | None:
    """`file:line: code` of the innermost frame that belongs to a model rather than to this package or a library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = os.path.abspath(frame.f_code.co_filename)
        if path.startswith(MODELS) or not (path.startswith((PACKAGE, _LIBRARY)) or _is_machinery(path)):
            shown = os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path
            return f"{shown}:{frame.f_lineno}: {_expression(frame)}"
        frame = frame.f_back
    return None


def _is_machinery(path: str) -> bool:
    """Whether a file is an installed library, or the script that an installer made to start a command."""
    return f"{os.sep}site-packages{os.sep}" in path or path.startswith(os.path.join(sys.prefix, "bin") + os.sep)


def _expression(frame: FrameType) -> str:
    """The expression that the frame is evaluating, or its line where the expression spans several."""
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).rstrip("\n")
    positions = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is not None:
        first, last, start, end = positions
        if first == last == frame.f_lineno and start is not None and end is not None:
            return code.encode()[start:end].decode(errors="replace")
    code = code.strip()
    return code if len(code) <= 100 else code[:97] + "..."


def fail(
    problem: str,
    *,
    asked: str | None = None,
    found: Mapping[str, Any] | None = None,
    fix: str | None = None,
    kind: type[NamedTensorError] = AxisError,
) -> NoReturn:
    """Raise `kind` with a report: the problem, the call, the operands, the line, the fix."""
    rows: list[tuple[str, str]] = []
    if asked is not None:
        rows.append(("asked", asked))
    for label, value in (found or {}).items():
        rows.append((label, value if isinstance(value, str) else describe(value)))
    line = source_line()
    if line is not None:
        rows.append(("at", line))
    if fix is not None:
        rows.append(("fix", fix))
    width = max((len(label) for label, _ in rows), default=0)
    raise kind("\n".join([problem, *(f"  {label:<{width}}  {text}" for label, text in rows)]))
