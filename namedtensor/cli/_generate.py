"""`run` for programs that turn texts into vectors."""

from __future__ import annotations

import click

from namedtensor.cli._job import Job, Kind


def _run(job: Job) -> None:
    raise click.UsageError("not yet")


KIND = Kind(name="generate", arguments="TEXT...", summary="", options=[], run=_run)
