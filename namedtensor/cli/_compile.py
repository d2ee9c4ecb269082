"""`namedtensor compile`: executables for accelerators that this machine does not have, and a report of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor import zoo
from namedtensor.cli import _app, _output

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled
    from namedtensor.lowering import Program


@click.command(short_help="Compile a model for accelerators that are not here.")
@click.argument("model")
@click.option(
    "--target",
    "names",
    metavar="TARGET",
    multiple=True,
    required=True,
    help="cuda:h100, rocm:mi300x, tpu:v5e-1, ... or a file that describes a chip. May be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write executables to DIR/TARGET/VARIANT.executable; without it there is only the report.",
)
@click.option("--entry", metavar="NAME", help="Only this entry point.")
@_app.model_weights
@_app.assignments
@_app.as_json
@_app.debug
def command(
    model: str,
    names: tuple[str, ...],
    output: Path | None,
    entry: str | None,
    weights: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile MODEL for each TARGET. Only the shapes of the weights are read.

    The report says, for every entry point and bucket, how large the executable is, what the chip's memory must hold
    (an error where it cannot), which of the vendor's libraries it calls, and the roofline's bound on its time. The
    compilers are fetched once, by hash, into the cache.
    """
    from namedtensor import compilers

    targets = list({one.name: one for one in (compilers.target(name) for name in names)}.values())
    if output is not None:
        _output.check_parent(output, "-o")
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        if entry is not None and entry not in program.entries:
            raise click.UsageError(f"{file.name} has no entry point {entry!r}; it has {', '.join(program.entries)}")
        with zoo.located(file), _progress(len(program.variants(entry)) * len(targets)) as advance:
            found = compilers.compile_for(program, targets, entry=entry, on_compiled=advance)
    rows = [compiled for target in targets for compiled in found[target.name]]
    if output is not None:
        for compiled in rows:
            path = output / compiled.target.name.replace(":", "-") / f"{compiled.variant}.executable"
            path.parent.mkdir(parents=True, exist_ok=True)
            with _output.replacing(path) as temporary:
                temporary.write_bytes(compiled.serialized)
    if as_json:
        _output.print_json({"model": file.name, "compiled": [_document(compiled, program) for compiled in rows]})
    else:
        _print(rows, program)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Progress on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("compiling", total=total)

        def advance(compiled: Compiled) -> None:
            progress.update(task, advance=1, description=f"compiled {compiled.variant} for {compiled.target.name}")

        yield advance


def _bound(compiled: Compiled, program: Program) -> tuple[float, str]:
    """The roofline's bound in the type of most weights."""
    leaves = program.weights().values()
    dtype = max((leaf for leaf in leaves), key=lambda leaf: leaf.size, default=None)
    chip = compiled.target.chip
    rate = chip.rate("float32" if dtype is None else dtype.dtype) or chip.rate("bfloat16") or float("inf")
    return compiled.cost.bound(rate, chip.memory_bandwidth)


def _document(compiled: Compiled, program: Program) -> dict[str, Any]:
    seconds, limit = _bound(compiled, program)
    return {
        "target": compiled.target.name,
        "variant": compiled.variant,
        "executable_bytes": len(compiled.serialized),
        "memory_bytes": compiled.memory_bytes,
        "argument_bytes": compiled.argument_bytes,
        "output_bytes": compiled.output_bytes,
        "alias_bytes": compiled.alias_bytes,
        "temporary_bytes": compiled.temporary_bytes,
        "chip_memory_bytes": compiled.target.chip.memory_bytes,
        "libraries": list(compiled.libraries),
        "custom_calls": list(compiled.custom_calls),
        "flops": compiled.cost.flops,
        "bytes": compiled.cost.bytes,
        "bound_seconds": seconds,
        "bound_by": limit,
        "compile_seconds": compiled.seconds,
        "compiler_peak_bytes": compiled.peak_compiler_bytes,
    }


def _print(rows: list[Compiled], program: Program) -> None:
    columns = (
        "target",
        "variant",
        "executable",
        "weights+state+io",
        "temporaries",
        "of chip",
        "calls",
        "bound",
        "took",
    )
    table = _output.table(*columns, right="executable weights+state+io temporaries bound took")
    for compiled in rows:
        seconds, limit = _bound(compiled, program)
        share = compiled.memory_bytes / compiled.target.chip.memory_bytes
        table.add_row(
            compiled.target.name,
            compiled.variant,
            _output.nbytes(len(compiled.serialized)),
            _output.nbytes(compiled.argument_bytes),
            _output.nbytes(compiled.temporary_bytes),
            f"{share:.1%}",
            ", ".join(compiled.libraries) or "no library",
            f"{_output.seconds(seconds)} {limit}",
            f"{compiled.seconds:.1f} s",
        )
    _output.print_table(table)
