"""Shared libraries as files: what they need, in turn, and what of them a loader never looks at."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from namedtensor._errors import ModelError

# glibc's own parts, which move together.
_GLIBC = re.compile(r"(libc|libm|libpthread|libdl|librt|libutil|libresolv|libmvec|ld-linux-x86-64)\.so\.\d+")
_GLIBC_VERSION = re.compile(r"GLIBC_(\d+(?:\.\d+)*)")
_ALLOCATED = 0x2  # SHF_ALLOC
_COPIED = 1 << 24


@dataclass(frozen=True)
class Needs:
    """What a shared library needs of others: their names, glibc's parts apart, and the oldest glibc that will do."""

    libraries: tuple[str, ...]
    glibc: tuple[int, ...]


def needs(path: Path) -> Needs:
    """Raises `ModelError` for a file that is no shared library."""
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            dynamic = cast(Any, elf.get_section_by_name(".dynamic"))
            needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
            versions: list[tuple[int, ...]] = [(0,)]
            required = cast(Any, elf.get_section_by_name(".gnu.version_r"))
            for _, auxiliaries in required.iter_versions() if required is not None else ():
                found = (_GLIBC_VERSION.fullmatch(auxiliary.name) for auxiliary in auxiliaries)
                versions += [tuple(map(int, match[1].split("."))) for match in found if match]
    except (ELFError, OSError, AttributeError) as error:
        raise ModelError(f"{path}: not a shared library that can be read ({error})") from error
    return Needs(tuple(name for name in needed if not _GLIBC.fullmatch(name)), max(versions))


@dataclass(frozen=True)
class Closure:
    """Everything that some libraries need.

    - `libraries`: files, each after those that it needs.
    - `host`: names of those that are not to be packed; the machine must have them.
    - `glibc`: the oldest that will do for all of them.
    """

    libraries: tuple[Path, ...]
    host: tuple[str, ...]
    glibc: tuple[int, ...]


def closure(roots: Iterable[Path], find: Callable[[str], Path | None]) -> Closure:
    """`find` says where a library of a name is, or None for one that the machine is to bring."""
    order: dict[str, Path] = {}
    host: set[str] = set()
    glibc: tuple[int, ...] = (0,)

    def visit(path: Path, under: tuple[str, ...]) -> None:
        nonlocal glibc
        if path.name in order or path.name in under:
            return
        found = needs(path)
        glibc = max(glibc, found.glibc)
        for name in found.libraries:
            place = find(name)
            if place is None:
                host.add(name)
            else:
                visit(place, (*under, path.name))
        order[path.name] = path

    for root in roots:
        visit(root, ())
    return Closure(tuple(order.values()), tuple(sorted(host)), glibc)


def trim(source: Path, output: Path) -> int:
    """Copy a shared library without what is never loaded: symbols for linkers and debuggers, comments.

    The dynamic symbols stay, and everything else that lies in memory, byte for byte; the table of sections is written
    anew behind it. Returns: the bytes that were left out.
    """
    try:
        with open(source, "rb") as file:
            elf = ELFFile(file)
            if elf.elfclass != 64 or not elf.little_endian:
                raise ModelError(f"{source}: not for a 64-bit little-endian machine")
            end = max(segment["p_offset"] + segment["p_filesz"] for segment in elf.iter_segments())
            end = max(end, elf["e_phoff"] + elf["e_phnum"] * elf["e_phentsize"])
            sections = [(index, section.name, section.header) for index, section in enumerate(elf.iter_sections())]
            size = file.seek(0, 2)
    except (ELFError, OSError) as error:
        raise ModelError(f"{source}: not a shared library that can be read ({error})") from error
    kept = [section for section in sections if section[0] == 0 or section[2]["sh_flags"] & _ALLOCATED]
    if end > size or any(header["sh_offset"] > end for _, _, header in kept):
        raise ModelError(f"{source}: a damaged shared library")
    names, places = b"", {}
    for index, name, _ in kept:
        places[index] = len(names)
        names += name.encode() + b"\0"
    own = len(names)
    names += b".shstrtab\0"
    numbers = {index: place for place, (index, _, _) in enumerate(kept)}
    names_at = end
    table_at = -(-(names_at + len(names)) // 8) * 8
    table = b""
    with open(source, "rb") as file:
        for index, _, header in kept:
            file.seek(elf["e_shoff"] + index * elf["e_shentsize"])
            fields = list(struct.unpack("<IIQQQQIIQQ", file.read(64)))
            fields[0] = places[index]
            fields[6] = numbers.get(fields[6], 0)
            # What a relocation section applies to; for symbols and versions the field is a count.
            if header["sh_type"] in ("SHT_REL", "SHT_RELA"):
                fields[7] = numbers.get(fields[7], 0)
            table += struct.pack("<IIQQQQIIQQ", *fields)
        table += struct.pack("<IIQQQQIIQQ", own, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
        file.seek(0)
        with open(output, "wb") as trimmed:
            shutil.copyfileobj(_First(file, end), trimmed, _COPIED)
            trimmed.write(names + bytes(table_at - names_at - len(names)) + table)
            trimmed.seek(40)
            trimmed.write(struct.pack("<Q", table_at))
            trimmed.seek(60)
            trimmed.write(struct.pack("<HH", len(kept) + 1, len(kept)))
    return size - output.stat().st_size


class _First:
    """The first bytes of a file."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data
