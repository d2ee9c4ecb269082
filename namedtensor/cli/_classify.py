"""`run` for programs that label images."""

from __future__ import annotations

import click

from namedtensor.cli._job import Job, Kind

_BAR = 24


def _run(job: Job) -> None:
    if not job.arguments:
        raise click.UsageError(f"{job.model.name} labels images: name at least one image file")
    entry = job.task.entry
    session = job.start(*job.variants(entry, b=job.pieces(entry, "b", len(job.arguments))))
    with job.working("run"):
        result = job.task.run(session, list(job.arguments), top=job.values["top"])
    if job.as_json:
        job.report(result.to_json())
        return
    for i, image in enumerate(result.images):
        width = max(len(found.label) for found in image.labels)
        click.echo("\n" * (i > 0) + image.file)
        for found in image.labels:
            bar = "█" * round(found.probability * _BAR)
            click.echo(f"  {found.label:<{width}}  {found.probability:6.1%}  {bar}".rstrip())


KIND = Kind(
    name="classify",
    arguments="IMAGE...",
    summary="Labels image files (PNG, JPEG, WebP, BMP, GIF).",
    options=[
        click.Option(
            ["--top"], type=click.IntRange(min=1), metavar="N", help="How many labels to show for each image."
        ),
    ],
    run=_run,
)
