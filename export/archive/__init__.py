"""Archives: a program, compiled, with its weights and the native program that runs it, as one file."""

from namedtensor.export.archive._build import Report, build, compress
from namedtensor.export.archive._read import Contents, Member, Opened, is_archive, opened, read

__all__ = ["Contents", "Member", "Opened", "Report", "build", "compress", "is_archive", "opened", "read"]
