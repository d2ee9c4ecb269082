"""`namedtensor image`: archives as OCI images."""

from __future__ import annotations

import click

from namedtensor.cli import _app

_COMMANDS = {
    "build": "namedtensor.cli._image_build",
    "push": "namedtensor.cli._push",
    "manifest": "namedtensor.cli._image_manifest",
}


@click.group(cls=_app.Commands, modules=_COMMANDS, short_help="Make OCI images of archives.", no_args_is_help=True)
@_app.debug
def command() -> None:
    """OCI images straight from archives, without Docker."""
