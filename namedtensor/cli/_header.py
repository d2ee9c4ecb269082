"""`namedtensor header`: a checkpoint without its tensors, which is all that compiling needs."""

from __future__ import annotations

from pathlib import Path

import click

from namedtensor.cli import _app, _output


@click.command(short_help="Write a checkpoint's header, without its weights.")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="The directory to write, new or empty.",
)
@_app.debug
def command(source: str, output: Path) -> None:
    """Write what the checkpoint SOURCE says of its tensors, and the small files beside them, to a directory.

    `--weights DIR` takes that directory wherever no weight is read: to lower, to inspect, to compile. Of the same
    shapes the same bytes come out, whatever the weights are, so a build system compiles again only where it must.
    """
    from namedtensor.checkpoint._discover import discover
    from namedtensor.checkpoint._header import write_header

    if not output.parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no directory {output.parent}")
    try:
        contents = discover(source)
        write_header(contents, output)
    except FileExistsError:
        raise click.UsageError(f"-o {output}: there is something already; name a new directory") from None
    tensors = contents.entries.values()
    held = _output.nbytes(sum(entry.nbytes for entry in tensors))
    written = _output.nbytes(sum(path.stat().st_size for path in output.iterdir()))
    click.echo(f"{output}: {len(tensors)} tensors described in {written}; their {held} stay where they are")
