"""`namedtensor compile`: executables, mostly for accelerators that this machine does not have, and a report of each."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor import targets, zoo
from namedtensor.cli import _app, _output, _progress

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled
    from namedtensor.lowering import Program


@click.command(short_help="Compile a model for accelerators that are not here.")
@click.argument("model")
@_app.targets
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
    (an error where it cannot), which of the vendor's libraries it calls, and the roofline's bound on its time, where
    the chip's rates are known. The compilers are fetched once, by hash, into the cache.
    """
    from namedtensor import compilers
    from namedtensor.export import archive

    wanted = list({one.name: one for one in map(compilers.target, names)}.values())
    if output is not None and (not output.parent.is_dir() or (output.exists() and not output.is_dir())):
        raise click.UsageError(f"-o {output}: there is no such directory, and none can be made there")
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        if entry is not None and entry not in program.entries:
            raise click.UsageError(f"{file.name} has no entry point {entry!r}; it has {', '.join(program.entries)}")
        with zoo.located(file), _progress.shown() as on_progress:
            found = compilers.compile_for(program, wanted, entry=entry, on_progress=on_progress)
            if output is not None:
                archive.save(output, program, found)
    rows = [compiled for variants in found.values() for compiled in variants]
    if as_json:
        _output.print_json({"model": file.name, "compiled": [_document(row, program) for row in rows]})
    else:
        _print(rows, program)


def _bound(compiled: Compiled, program: Program) -> tuple[float, str] | None:
    """The roofline's bound in the type of most weights, where the rates are known."""
    chip = compiled.target.chip
    if compiled.target.name == "cpu:native":
        chip = _here()
    if chip is None:
        return None
    leaves = program.weights().values()
    dtype = max((leaf for leaf in leaves), key=lambda leaf: leaf.size, default=None)
    rate = chip.rate("float32" if dtype is None else dtype.dtype) or chip.rate("bfloat16") or float("inf")
    return compiled.cost.bound(rate, chip.memory_bandwidth)


@functools.cache
def _here() -> targets.Chip:
    return targets.chip(targets.NATIVE)


def _document(compiled: Compiled, program: Program) -> dict[str, Any]:
    seconds, limit = _bound(compiled, program) or (None, None)
    chip = compiled.target.chip
    return {
        "target": compiled.target.name,
        "variant": compiled.variant,
        "executable_bytes": len(compiled.serialized),
        "code_bytes": compiled.code_bytes,
        "memory_bytes": compiled.memory_bytes,
        "weight_bytes": compiled.weight_bytes,
        "state_bytes": compiled.state_bytes,
        "argument_bytes": compiled.argument_bytes,
        "output_bytes": compiled.output_bytes,
        "alias_bytes": compiled.alias_bytes,
        "temporary_bytes": compiled.temporary_bytes,
        "chip_memory_bytes": None if chip is None else chip.memory_bytes,
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
    sizes = "executable weights state temporaries"
    columns = ("target", "variant", *sizes.split(), "of chip", "calls", "bound", "took")
    table = _output.table(*columns, right=f"{sizes} bound took")
    for compiled in rows:
        bound = _bound(compiled, program)
        chip = compiled.target.chip
        table.add_row(
            compiled.target.name,
            compiled.variant,
            _output.nbytes(len(compiled.serialized)),
            _output.nbytes(compiled.weight_bytes),
            _output.nbytes(compiled.state_bytes),
            _output.nbytes(compiled.temporary_bytes),
            "" if chip is None else f"{compiled.memory_bytes / chip.memory_bytes:.1%}",
            ", ".join(compiled.libraries) or "no library",
            "" if bound is None else f"{_output.seconds(bound[0])} {bound[1]}",
            f"{compiled.seconds:.1f} s",
        )
    _output.print_table(table)
