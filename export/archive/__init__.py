"""Archives: a program, compiled, with its weights and the native program that runs it, as one file."""

from namedtensor.export.archive._build import Report, build, lower, split_targets
from namedtensor.export.archive._compile import CpuVariant, compile_cpu, save
from namedtensor.export.archive._compress import compress
from namedtensor.export.archive._executables import Prepared
from namedtensor.export.archive._plugins import fetch
from namedtensor.export.archive._read import Contents, Member, Opened, is_archive, opened, read
from namedtensor.export.archive._unpack import unpack

__all__ = [
    "Contents",
    "CpuVariant",
    "Member",
    "Opened",
    "Prepared",
    "Report",
    "build",
    "compile_cpu",
    "compress",
    "fetch",
    "is_archive",
    "lower",
    "opened",
    "read",
    "save",
    "split_targets",
    "unpack",
]
