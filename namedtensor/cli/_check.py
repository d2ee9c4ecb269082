"""`namedtensor check`: an archive's own program at work, and its answer held against a recorded one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from namedtensor._errors import InputError, ModelError
from namedtensor.cli import _app, _output

# Of differences, as many as tell what is wrong.
_SHOWN = 5
_LARGEST = 1 << 28


@click.command(short_help="Run an archive's program and compare its answer.")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENTS...]")
@click.option("--expect", type=click.Path(path_type=Path), metavar="FILE", help="What it must answer, as JSON.")
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Write what it answers.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="How far numbers may differ, absolutely and relatively.",
)
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Weights outside of the archive.")
@_app.debug
def command(
    archive: Path,
    arguments: tuple[str, ...],
    expect: Path | None,
    record: Path | None,
    tolerance: float,
    weights: Path | None,
) -> None:
    """Unpack ARCHIVE, run its program with ARGUMENTS and --json, and compare the answer with a recorded one.

    Texts must be equal and numbers close. Exits with 1 where the answer differs, or the program failed.
    """
    if (expect is None) == (record is None):
        raise click.UsageError("give one of --expect and --record")
    if record is not None:
        _output.check_parent(record, "--record")
    wanted = None if expect is None else _document(expect)
    given = () if weights is None else ("--weights", str(weights.absolute()))
    found = _answer(archive, (*given, "--json", *arguments))
    if record is not None:
        with _output.replacing(record) as temporary:
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        click.echo(f"{record}: what {archive.name} answers")
        return
    differences = list(_differences(found, wanted, tolerance))
    if differences:
        shown = "".join(f"\n  {line}" for line in differences[:_SHOWN])
        more = len(differences) - _SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        raise ModelError(f"{archive.name} answers differently than {expect} says{shown}{rest}")
    click.echo(f"{archive.name} answers as {expect} says")


def _document(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: too large for a recorded answer")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error


def _answer(archive: Path, arguments: tuple[str, ...]) -> Any:
    from namedtensor.export.archive import unpack

    with tempfile.TemporaryDirectory(prefix="namedtensor-") as temporary:
        program = unpack(archive, Path(temporary))
        # Nothing of this process' environment: the program that a server runs gets none of it either.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False
        )
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode != 0:
        raise ModelError(f"{archive.name}: its program ended with {done.returncode}: {said or 'it said nothing'}")
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise ModelError(f"{archive.name}: its program printed no JSON ({error})") from error


def _differences(found: Any, wanted: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Where two documents differ, a line each."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            where = f"{place}.{key}" if place else str(key)
            if key not in found or key not in wanted:
                yield f"{where}: {'missing' if key in wanted else 'not in the recorded answer'}"
            else:
                yield from _differences(found[key], wanted[key], tolerance, where)
    elif isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            yield f"{place}: {len(found)} elements, recorded {len(wanted)}"
        for index, (one, other) in enumerate(zip(found, wanted, strict=False)):
            yield from _differences(one, other, tolerance, f"{place}[{index}]")
    elif _number(found) and _number(wanted):
        if not math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{place}: {found}, recorded {wanted}"
    elif type(found) is not type(wanted) or found != wanted:
        yield f"{place}: {found!r}, recorded {wanted!r}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
