"""What commands print and write: tables for people, one JSON document for machines, files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """For stdout. Where that is no terminal nothing is folded to a width and nothing is styled."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=False, width=wide, emoji=False, markup=False)


def table(*columns: str, right: str = "") -> Table:
    """A table without lines; columns named in `right` (space separated) are numbers, set to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        number = column in right.split()
        made.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return made


def print_table(made: Any) -> None:
    """Print a table or a tree, without the spaces that fill its lines."""
    show = console()
    with show.capture() as capture:
        show.print(made)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_json(document: Any) -> None:
    """Print one JSON document. What JSON has no number for stands as "NaN", "Infinity" or "-Infinity"."""
    click.echo(json.dumps(_plain(document), ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and jax
        return _plain(value.tolist())
    return value


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """While a document is made, what a model prints goes to stderr: stdout holds the document and nothing else."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def check_parent(path: Path, option: str) -> None:
    """Refuse a path to write to before any work is done for it."""
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {path}: there is no directory {path.parent}")
    if path.is_dir():
        raise click.UsageError(f"{option} {path}: that is a directory")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place once the block is done, and leaves nothing otherwise."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise click.ClickException(f"cannot write to {path.parent}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What is being done, on stderr where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status("") as status:
        yield lambda step: status.update(step)


def count(number: float) -> str:
    """`1.24 G`: a count in steps of a thousand, to three figures."""
    units = ["", " k", " M", " G", " T", " P"]
    while abs(number) >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    if not units[0] and number == int(number):
        return str(int(number))
    digits = 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    return f"{number:.{digits}f}{units[0]}"


def nbytes(number: float) -> str:
    """`2.47 GB`: bytes in steps of a thousand."""
    text = count(number)
    return f"{text}B" if " " in text else f"{text} B"


def seconds(number: float) -> str:
    """`12.3 ms`: a duration."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number / 1e-9:.3g} ns"
