"""The commands, and what all of them have in common. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

_COMMANDS = {
    "run": "namedtensor.cli._run",
    "inspect": "namedtensor.cli._inspect",
    "lower": "namedtensor.cli._lower",
    "compile": "namedtensor.cli._compile",
    "header": "namedtensor.cli._header",
    "build": "namedtensor.cli._build",
    "check": "namedtensor.cli._check",
    "image": "namedtensor.cli._image",
    "targets": "namedtensor.cli._targets",
    "compare": "namedtensor.cli._compare",
    "version": "namedtensor.cli._version",
}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """A group whose commands live in modules of their own: `modules` has the module's name by the command's."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        command = importlib.import_module(self._modules[cmd_name]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in self._modules:
            from namedtensor._errors import closest

            guess = closest(args[0], self._modules)
            hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(self._modules)}"
            ctx.fail(f"there is no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


EPILOG = """\
Exit codes: 0 done; 1 the model or the machine failed; 2 wrong usage; 3 a file, checkpoint or value
that was given is missing, damaged or does not fit; 130 interrupted; 141 the reader of the output
went away.
"""


@click.group(cls=Commands, modules=_COMMANDS, context_settings=CONTEXT, epilog=EPILOG, no_args_is_help=True)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def app() -> None:
    """Models with named axes: run them, look into them, lower them to StableHLO."""


debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with every number.")
targets = click.option(
    "--target",
    "names",
    metavar="TARGET",
    multiple=True,
    required=True,
    help="cpu:x86-64-v3, cuda:h100, ... (`namedtensor targets` lists them) or a file that describes a chip. May be "
    "repeated.",
)

model_weights = click.option(
    "--weights",
    metavar="SOURCE",
    help="Where the weights are: a file, a directory, or hf://, https://, s3://, gs://.",
)
assignments = click.option(
    "--set",
    "assignments",
    metavar="OPTION=VALUE",
    multiple=True,
    help="Set an option of the model. May be repeated.",
)
