"""What goes wrong with a registry, in one line."""

from __future__ import annotations

from typing import NoReturn

from namedtensor._errors import InputError, NamedTensorError

_LONGEST = 400


class RegistryError(NamedTensorError):
    """A registry refused, could not be reached, or does not keep to the protocol. `status` is HTTP's, if one came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(one_line(message))
        self.status = status


class Cancelled(RegistryError):
    """Another part of the same work failed or was interrupted."""


def refuse(problem: str, fix: str | None = None) -> NoReturn:
    """Raise `InputError`: what was named is not there, or what it holds is not what it has to be."""
    raise InputError(one_line(f"{problem}; {fix}" if fix else problem))


def one_line(text: str) -> str:
    """What anyone may have written, fit for a terminal: printable, one line, not endless."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 3] + "..."
