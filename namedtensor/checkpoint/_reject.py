"""One line for a file that cannot be trusted: which file, what is wrong with it, what to do."""

from typing import NoReturn

from namedtensor._errors import CheckpointError


def reject(file: str, problem: str, fix: str | None = None) -> NoReturn:
    """Raise `CheckpointError` of one line."""
    line = f"{file}: {problem}" + (f"; {fix}" if fix else "")
    # Names inside a hostile file may hold anything; what reaches a terminal is printable and one line.
    raise CheckpointError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)) from None


def quoted(name: str) -> str:
    """A name from a file, quoted and cut to a length that fits a line."""
    return repr(name if len(name) <= 120 else name[:117] + "...")
