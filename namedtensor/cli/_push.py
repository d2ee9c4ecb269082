"""`namedtensor image push`: an image into a registry."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor.cli import _app, _image, _output

if TYPE_CHECKING:
    from namedtensor.export.oci import Layout
    from namedtensor.export.oci.registry import Pushed, Watcher


@click.command(short_help="Push an image to a registry.")
@click.argument("source", metavar="ARCHIVE|LAYOUT", type=click.Path(path_type=Path, exists=True))
@click.argument("destination", metavar="REGISTRY/REPOSITORY:TAG")
@click.option("--tag", metavar="TAG", help="Which image of LAYOUT, where it has several.")
@click.option(
    "--mount-from",
    metavar="REPOSITORY",
    multiple=True,
    help="Of the same registry, which may have some of the layers: those are then not sent. May be repeated.",
)
@_image.registry
@click.option(
    "--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="How many layers to send at once."
)
@_app.as_json
@_app.debug
def command(
    source: Path,
    destination: str,
    tag: str | None,
    mount_from: tuple[str, ...],
    plain_http: bool,
    ca_file: Path | None,
    parallel: int,
    as_json: bool,
) -> None:
    """Push the image of an ARCHIVE, or the one in an OCI image LAYOUT, and tag it.

    Layers that the registry has are not sent. A push that was interrupted goes on where it stopped when it is started
    again; the tag names the whole image or what it named before. Credentials are those of `docker login`, or
    NAMEDTENSOR_REGISTRY_USERNAME and NAMEDTENSOR_REGISTRY_PASSWORD.
    """
    from namedtensor.export.oci.registry import Client, Reference, checked_repository, push

    reference = Reference.parse(destination)
    for name in mount_from:
        checked_repository(name, f"--mount-from {name}")
    with (
        _layout(source, tag) as layout,
        Client(own=reference.registry, plain_http=plain_http, ca_file=ca_file) as client,
        _progress() as watcher,
    ):
        pushed = push(layout, reference, client, image=tag, mount_from=mount_from, parallel=parallel, watcher=watcher)
    if as_json:
        _output.print_json(_document(pushed))
    else:
        _print(pushed)


@contextlib.contextmanager
def _layout(source: Path, tag: str | None) -> Iterator[Layout]:
    """The layout at `source`, or one that is made of the archive there for as long as the block runs."""
    from namedtensor.export import archive, oci

    if source.is_dir() or not archive.is_archive(source.name):
        with oci.Layout(source) as layout:
            yield layout
        return
    if tag is not None:
        raise click.UsageError(f"--tag: {source} is an archive, which is one image")
    with tempfile.TemporaryDirectory(prefix="namedtensor.") as temporary:
        place = Path(temporary) / "layout"
        with _output.progress() as step:
            oci.build([source], place, on_step=step)
        with oci.Layout(place) as layout:
            yield layout


@contextlib.contextmanager
def _progress() -> Iterator[Watcher]:
    """Bytes, rate and time left, on stderr where that is a terminal."""
    from namedtensor.export.oci.registry import Watcher

    if not sys.stderr.isatty():
        yield Watcher()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("pushing"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=0)
        total, lock = 0, threading.Lock()

        def planned(size: int) -> None:
            nonlocal total
            with lock:
                total += size
                bar.update(task, total=total)

        # Bytes that the registry has already count as none to send.
        yield Watcher(
            planned=planned,
            moved=lambda count: bar.advance(task, count),
            settled=lambda sent: planned(0 if sent.outcome == "sent" else -sent.descriptor.size),
        )


def _document(pushed: Pushed) -> dict[str, Any]:
    return {
        "reference": str(pushed.reference),
        "digest": pushed.digest,
        "sent_bytes": pushed.bytes,
        "sent": pushed.count("sent"),
        "present": pushed.count("present"),
        "mounted": pushed.count("mounted"),
        "blobs": [
            {
                "digest": blob.descriptor.digest,
                "bytes": blob.descriptor.size,
                "outcome": blob.outcome,
                "sent_bytes": blob.bytes,
            }
            for blob in pushed.blobs
        ],
        "manifests": list(pushed.manifests),
        "referrers": list(pushed.referrers),
    }


def _print(pushed: Pushed) -> None:
    table = _output.table("blob", "bytes", "", right="bytes")
    for blob in pushed.blobs:
        table.add_row(blob.descriptor.digest[:23], _output.nbytes(blob.descriptor.size), blob.outcome)
    _output.print_table(table)
    reference = pushed.reference if pushed.reference.digest else f"{pushed.reference}@{pushed.digest}"
    click.echo(f"\n{reference}: {_output.nbytes(pushed.bytes)} sent")
