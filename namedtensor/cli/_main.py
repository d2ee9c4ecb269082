"""From arguments to an exit code: the one place where errors become lines and codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence

import click

from namedtensor._errors import CheckpointError, InputError, NamedTensorError
from namedtensor.zoo import ChoiceError, summary

OK = 0
FAILED = 1  # the model or the machine failed
USAGE = 2  # the command was not understood
BAD_INPUT = 3  # a file, a checkpoint or a value is damaged, missing or does not fit
INTERRUPTED = 130  # as the shell reports SIGINT
PIPE_CLOSED = 141  # as the shell reports SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. What went wrong stands on stderr, without a traceback.

    Exit codes: 0 done; 1 the model or the machine failed; 2 wrong usage; 3 a file, checkpoint or value given is bad;
    130 interrupted; 141 the reader of our output went away. `--debug` lets the traceback through.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A bar or a model's words must not end the run where the terminal cannot show them.
        sys.stdout.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            if not debug:
                _quiet()
            code = _run(arguments, debug=debug)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more when it exits; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _run(arguments: list[str], *, debug: bool) -> int:
    from namedtensor.cli._app import app

    try:
        with app.make_context("namedtensor", list(arguments)) as context:
            app.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _report("interrupted", INTERRUPTED)
    except click.ClickException as error:
        return _report(error.format_message(), USAGE, hint=_help_for(error))
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ChoiceError):
            return _report(str(error), USAGE)
        if isinstance(error, (CheckpointError, InputError)):
            return _report(str(error), BAD_INPUT)
        if isinstance(error, NamedTensorError):
            return _report(str(error), FAILED)
        if isinstance(error, MemoryError):
            return _report("not enough memory", FAILED)
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return _report(f"{where}{error.strerror}", FAILED)
        return _report(f"{summary(error)} (--debug shows where)", FAILED)
    return OK


def _report(message: str, code: int, *, hint: str | None = None) -> int:
    # Names inside hostile files may hold anything; what reaches a terminal is printable.
    clean = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    click.echo(click.style("namedtensor: error:", fg="red", bold=True) + f" {clean}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    return code


def _help_for(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    if not isinstance(context, click.Context):
        return None
    model = context.params.get("model") if context.info_name == "run" else None
    return f"try '{context.command_path}{f' {model}' if model else ''} --help'"


def _quiet() -> None:
    """Keep the chatter of jax and XLA off stderr: about devices that are not there, buffers that were not reused."""
    for variable, level in (("TF_CPP_MIN_LOG_LEVEL", "2"), ("GRPC_VERBOSITY", "ERROR"), ("TPU_MIN_LOG_LEVEL", "2")):
        os.environ.setdefault(variable, level)
    warnings.filterwarnings("ignore", module=r"jax\b")
    warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
    # A plugin that finds no device of its kind logs a whole traceback here.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.CRITICAL)
