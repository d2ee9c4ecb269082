"""`namedtensor image build`: archives as an OCI image layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor.cli import _app, _image, _output

if TYPE_CHECKING:
    from namedtensor.export.oci import Report

_NOBODY = "65532:65532"


@click.command(short_help="Write an OCI image layout.")
@click.argument("archives", nargs=-1, required=True, metavar="ARCHIVE...", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR or FILE.tar",
    required=True,
    help="The layout to write; one that is there is replaced.",
)
@click.option("--tag", default="latest", show_default=True, help="The name of the image within the layout.")
@click.option(
    "--compression",
    type=click.Choice(["zstd", "gzip", "none"]),
    default="zstd",
    show_default=True,
    help="Of the layers. Docker before 23 and umoci before 0.5 know only gzip.",
)
@click.option(
    "--base",
    metavar="IMAGE",
    help="An image to build upon: REGISTRY/REPOSITORY:TAG, or oci:PATH:TAG of a layout. "
    "Images for CPUs need none; those with plugins then take the system's libraries from it.",
)
@_image.registry
@click.option("--user", default=_NOBODY, show_default=True, metavar="UID[:GID]", help="Who the program runs as.")
@click.option("--port", "ports", type=click.IntRange(1, 65535), multiple=True, help="A port that is exposed.")
@click.option("--version", metavar="TEXT", help="The version that annotations and the bill of materials name.")
@_app.as_json
@_app.debug
def command(
    archives: tuple[Path, ...],
    output: Path,
    tag: str,
    compression: str,
    base: str | None,
    plain_http: bool,
    ca_file: Path | None,
    user: str,
    ports: tuple[int, ...],
    version: str | None,
    as_json: bool,
) -> None:
    """Write an OCI image layout with the image of each ARCHIVE; of several, an index of them has the tag.

    The image holds the program and what it needs, and nothing else. A bill of materials (SPDX) and the image's
    provenance (SLSA) refer to it. The same archive gives the same digest. Of a .safetensors file it is an image of
    weights alone, for archives that have theirs outside.
    """
    from namedtensor.export import oci

    _check(tag, user)
    if (plain_http or ca_file is not None) and (base is None or base.startswith("oci:")):
        raise click.UsageError("--plain-http and --ca-file are for the registry that --base is in")
    if not output.absolute().parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no directory {output.parent}")
    oci.check_output(output)
    choices = oci.Choices(user=user, ports=ports, version=version)
    with _output.progress() as step:
        report = oci.build(
            archives,
            output,
            tag=tag,
            compression=compression,
            on=base,
            plain_http=plain_http,
            ca_file=ca_file,
            choices=choices,
            on_step=step,
        )
    if as_json:
        _output.print_json(_document(report))
    else:
        _print(report)


def _check(tag: str, user: str) -> None:
    import re

    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag):
        raise click.UsageError(f"--tag {tag!r}: a tag is of letters, digits, . _ and -, at most 128")
    if not re.fullmatch(r"\d{1,10}(:\d{1,10})?", user):
        raise click.UsageError(f"--user {user!r}: numbers are wanted, since an image of so few files knows no names")


def _document(report: Report) -> dict[str, Any]:
    return {
        "layout": report.path,
        "tag": report.tag,
        "digest": report.descriptor["digest"],
        "images": [
            {
                "archive": image.archive,
                "digest": image.descriptor["digest"],
                "targets": list(image.targets),
                "bytes": image.bytes,
                "layers": [
                    {"title": layer.title, "unpacked_bytes": layer.unpacked, **layer.descriptor}
                    for layer in image.layers
                ],
            }
            for image in report.images
        ],
        "referrers": list(report.referrers),
    }


def _print(report: Report) -> None:
    for image in report.images:
        table = _output.table("layer", "bytes", "unpacked", "digest", right="bytes unpacked")
        for layer in image.layers:
            size, unpacked = _output.nbytes(layer.descriptor["size"]), _output.nbytes(layer.unpacked)
            table.add_row(layer.title, size, unpacked, layer.descriptor["digest"][:23])
        _output.print_table(table)
        click.echo(
            f"\n{', '.join(image.targets) or 'weights'}: {_output.nbytes(image.bytes)}, {image.descriptor['digest']}\n"
        )
    click.echo(f"{report.path}, tagged {report.tag}: {report.descriptor['digest']}")
