"""Archives: a program, compiled, with its weights and the native program that runs it, as one file."""

from namedtensor.export.archive._build import Report, build
from namedtensor.export.archive._compress import compress
from namedtensor.export.archive._executables import Prepared, save
from namedtensor.export.archive._plugins import fetch
from namedtensor.export.archive._read import Contents, Member, Opened, is_archive, opened, read
from namedtensor.export.archive._unpack import unpack

__all__ = [
    "Contents",
    "Member",
    "Opened",
    "Prepared",
    "Report",
    "build",
    "compress",
    "fetch",
    "is_archive",
    "opened",
    "read",
    "save",
    "unpack",
]
