"""`namedtensor image`: archives as OCI images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from namedtensor.cli import _app

_COMMANDS = {
    "build": "namedtensor.cli._image_build",
    "push": "namedtensor.cli._push",
    "manifest": "namedtensor.cli._image_manifest",
}


def registry(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that talks to a registry: the options that say how, `plain_http` and `ca_file`."""
    plain_http = click.option(
        "--plain-http", is_flag=True, help="Talk to the registry without TLS. One on this machine needs no asking."
    )
    ca_file = click.option(
        "--ca-file",
        metavar="FILE.pem",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Certificates of authorities to trust besides the system's.",
    )
    return plain_http(ca_file(command))


@click.group(cls=_app.Commands, modules=_COMMANDS, short_help="Make OCI images of archives.", no_args_is_help=True)
@_app.debug
def command() -> None:
    """OCI images straight from archives, without Docker."""
