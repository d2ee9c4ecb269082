"""`namedtensor build`: a model, compiled and packed with its weights and the program that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from namedtensor import zoo
from namedtensor.cli import _app, _output, _progress

if TYPE_CHECKING:
    from namedtensor.export.archive import Report


@click.command(short_help="Pack a model into an archive that runs by itself.")
@click.argument("model")
@_app.targets
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.tar.zst",
    required=True,
    help="The archive to write.",
)
@click.option(
    "--weights-outside",
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="Write the weights to this file instead; whoever runs the archive says where it is.",
)
@click.option(
    "--compiled",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="Take executables that `namedtensor compile -o DIR` wrote, and compile nothing. May be repeated.",
)
@click.option(
    "--plugins/--no-plugins",
    default=True,
    help="Pack the plugins that run the executables of accelerators (the default), or leave them to whoever runs it.",
)
@_app.model_weights
@_app.assignments
@_app.as_json
@_app.debug
def command(
    model: str,
    names: tuple[str, ...],
    output: Path,
    weights_outside: Path | None,
    compiled: tuple[Path, ...],
    plugins: bool,
    weights: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Pack MODEL into one archive: compiled for each TARGET, with its weights and a native program that runs it.

    Unpacked anywhere, the program in it needs no Python and no libraries for CPU targets. For accelerators the archive
    holds the plugin that runs their executables, and of the vendor's libraries those that they call; the machine brings
    the driver, and glibc 2.28 or later.
    """
    from namedtensor.export import archive

    if not archive.is_archive(output.name):
        raise click.UsageError(f"-o {output}: an archive's name ends in .tar.zst")
    _output.check_parent(output, "-o")
    if weights_outside is not None:
        _output.check_parent(weights_outside, "--weights-outside")
        if weights_outside.parent.stat().st_dev != output.parent.stat().st_dev:
            raise click.UsageError("--weights-outside and -o must lie on one file system")
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        with zoo.located(file), _progress.shown() as on_progress:
            report = archive.build(
                program,
                output,
                names,
                weights_outside=weights_outside,
                compiled=compiled,
                plugins=plugins,
                on_progress=on_progress,
            )
    if as_json:
        _output.print_json(_document(file.name, report))
    else:
        _print(report)


def _document(model: str, report: Report) -> dict[str, object]:
    return {
        "model": model,
        "archive": report.path,
        "bytes": report.bytes,
        "unpacked_bytes": report.unpacked,
        "files": report.files,
        "weights_outside": report.outside,
    }


def _print(report: Report) -> None:
    table = _output.table("file", "bytes", right="bytes")
    for path, size in report.files.items():
        table.add_row(path, _output.nbytes(size))
    _output.print_table(table)
    click.echo(f"\n{report.path}: {_output.nbytes(report.bytes)}, unpacked {_output.nbytes(report.unpacked)}")
    if report.outside is not None:
        click.echo(f"{report.outside}: the weights, {_output.nbytes(report.outside.stat().st_size)}")
