"""`namedtensor compile`: executables, mostly for accelerators that this machine does not have, and a report of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor import zoo
from namedtensor.cli import _app, _output

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from namedtensor.compilers import Compiled
    from namedtensor.export.archive import CpuVariant
    from namedtensor.lowering import Program

    Row = Compiled | CpuVariant


@click.command(short_help="Compile a model for accelerators that are not here.")
@click.argument("model")
@click.option(
    "--target",
    "names",
    metavar="TARGET",
    multiple=True,
    required=True,
    help="cuda:h100, rocm:mi300x, tpu:v5e-1, cpu:x86-64-v3, ... or a file that describes a chip. May be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write executables to DIR/TARGET/, for `build --compiled DIR`; without it there is only the report.",
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
    compilers are fetched once, by hash, into the cache. Executables for CPUs are those that an archive holds.
    """
    from namedtensor import compilers
    from namedtensor.export import archive

    levels, chips = archive.split_targets(names)
    chips = list({one.name: one for one in chips}.values())
    if output is not None and (not output.parent.is_dir() or (output.exists() and not output.is_dir())):
        raise click.UsageError(f"-o {output}: there is no such directory, and none can be made there")
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        if entry is not None and entry not in program.entries:
            raise click.UsageError(f"{file.name} has no entry point {entry!r}; it has {', '.join(program.entries)}")
        total = len(program.variants(entry)) * (len(levels) + len(chips))
        with zoo.located(file), _progress(total) as advance:
            lowered = archive.lower(program) if levels else {}
            wanted = {name: one for name, one in lowered.items() if entry in (None, one.variant.entry)}
            on_cpu = archive.compile_cpu(wanted, levels, advance)
            on_chips = compilers.compile_for(program, chips, entry=entry, on_compiled=advance)
            if output is not None:
                archive.save(output, program, lowered, on_cpu, on_chips)
    rows: list[Row] = [row for found in (on_cpu, on_chips) for variants in found.values() for row in variants]
    if as_json:
        _output.print_json({"model": file.name, "compiled": [_document(row, program) for row in rows]})
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

        def advance(compiled: Row) -> None:
            progress.update(task, advance=1, description=f"compiled {compiled.variant} for {_target(compiled)}")

        yield advance


def _is_cpu(compiled: Row) -> TypeIs[CpuVariant]:
    return isinstance(compiled.target, str)


def _target(compiled: Row) -> str:
    return compiled.target if _is_cpu(compiled) else compiled.target.name


def _bound(compiled: Compiled, program: Program) -> tuple[float, str]:
    """The roofline's bound in the type of most weights."""
    leaves = program.weights().values()
    dtype = max((leaf for leaf in leaves), key=lambda leaf: leaf.size, default=None)
    chip = compiled.target.chip
    rate = chip.rate("float32" if dtype is None else dtype.dtype) or chip.rate("bfloat16") or float("inf")
    return compiled.cost.bound(rate, chip.memory_bandwidth)


def _document(compiled: Row, program: Program) -> dict[str, Any]:
    if _is_cpu(compiled):
        return {
            "target": compiled.target,
            "variant": compiled.variant,
            "executable_bytes": len(compiled.data),
            "temporary_bytes": compiled.temporary_bytes,
            "compile_seconds": compiled.seconds,
        }
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


def _print(rows: list[Row], program: Program) -> None:
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
        if _is_cpu(compiled):
            # The runner's own kernels and its plan of memory; a server's memory and speed are not known here.
            sizes = _output.nbytes(len(compiled.data)), "", _output.nbytes(compiled.temporary_bytes)
            table.add_row(compiled.target, compiled.variant, *sizes, "", "no library", "", f"{compiled.seconds:.1f} s")
            continue
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
