"""The command line, `namedtensor`."""

from namedtensor.cli._main import main

__all__ = ["main"]
