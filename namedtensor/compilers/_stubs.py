"""Stand-ins for shared libraries that a compiler plugin is linked against and does not call while it compiles.

The ROCm plugin needs AMD's runtime and math libraries to be loaded at all, and none of them is on the package
registries. To compile, it calls nothing in them. So for every library that this machine lacks, a stub is written with
the same name, symbols and symbol versions, read from the plugin's own dynamic table: each function returns an error.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from namedtensor._errors import ModelError

# Libraries of every Linux system with a C++ program on it: the real ones are there, or nothing works anyway.
_SYSTEM = ("libc.", "libm.", "libpthread.", "libdl.", "librt.", "libstdc++.", "libgcc_s.", "ld-linux")
_MOST_SYMBOLS = 200_000
_PAGE = 4096
# mov eax, 1; ret: in HIP, RCCL and the libraries above them 1 is an error ("invalid value", "unhandled error").
_FAIL = b"\xb8\x01\x00\x00\x00\xc3"


@dataclass
class Library:
    """What a plugin wants of one shared library: symbols, with the version of each, or None where it names none."""

    name: str
    symbols: dict[str, str | None] = field(default_factory=dict)


def wanted(plugin: Path) -> list[Library]:
    """The libraries that `plugin` needs beyond those of the system, with the symbols that it takes from each.

    A symbol without a version does not say where it comes from; the first library gets them all, since any will do.
    """
    try:
        with open(plugin, "rb") as file:
            elf = ELFFile(file)
            # pyelftools has a class for each kind of section and says so to no type checker.
            dynamic, needs, numbers, table = (
                cast(Any, elf.get_section_by_name(name))
                for name in (".dynamic", ".gnu.version_r", ".gnu.version", ".dynsym")
            )
            needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
            libraries = {name: Library(name) for name in needed if not name.startswith(_SYSTEM)}
            if not libraries:
                return []
            versions: dict[int, tuple[str, str]] = {}
            for need, auxiliaries in needs.iter_versions():
                for auxiliary in auxiliaries:
                    versions[auxiliary.entry.vna_other] = (need.name, auxiliary.name)
            if table.num_symbols() > _MOST_SYMBOLS:
                raise ModelError(f"{plugin.name} has {table.num_symbols()} dynamic symbols; at most {_MOST_SYMBOLS}")
            anywhere = next(iter(libraries.values()))
            for index, symbol in enumerate(table.iter_symbols()):
                entry = symbol.entry
                if entry.st_shndx != "SHN_UNDEF" or entry.st_info.bind != "STB_GLOBAL" or not symbol.name:
                    continue
                number = numbers.get_symbol(index).entry.ndx
                place = versions.get(number & 0x7FFF) if isinstance(number, int) else None
                if place is None:
                    anywhere.symbols[symbol.name] = None
                elif place[0] in libraries:
                    libraries[place[0]].symbols[symbol.name] = place[1]
            return list(libraries.values())
    except (ELFError, OSError, AttributeError) as error:
        raise ModelError(f"{plugin}: not a shared library that can be read ({error})") from error


def preload(plugin: Path, directory: Path) -> list[str]:
    """Load what `plugin` needs: libraries of this machine where they are there, stubs written to `directory` elsewhere.

    Returns the names of the libraries that are stubs.
    """
    stubs = []
    for library in wanted(plugin):
        try:
            ctypes.CDLL(library.name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            path = directory / library.name
            if not path.exists():
                directory.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{os.getpid()}")
                temporary.write_bytes(shared_object(library))
                os.replace(temporary, path)
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            stubs.append(library.name)
    return stubs


def shared_object(library: Library) -> bytes:
    """An x86-64 ELF shared object that defines the library's symbols, every one the same function that fails.

    Layout (System V ABI, GNU symbol versioning): one read-only, executable segment with headers, hash table, symbols,
    strings, versions and code; one writable segment with the dynamic section, which the loader relocates in place.
    """
    strings = _Strings()
    soname = strings.add(library.name)
    versions = sorted({version for version in library.symbols.values() if version is not None})
    numbers = {version: index + 2 for index, version in enumerate(versions)}  # 0 is local, 1 the library itself

    code_at = 64 + 3 * 56
    symbols = [struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)]
    marks = [0]
    for name, version in library.symbols.items():
        symbols.append(struct.pack("<IBBHQQ", strings.add(name), 0x12, 0, 1, code_at, len(_FAIL)))
        marks.append(numbers[version] if version is not None else 1)

    definitions = b""
    for index, name in enumerate([library.name, *versions]):
        last = index == len(versions)
        flags = 1 if index == 0 else 0
        definitions += struct.pack("<HHHHIII", 1, flags, index + 1, 1, _elf_hash(name), 20, 0 if last else 28)
        definitions += struct.pack("<II", strings.add(name), 0)

    # One chain through all symbols: looked up a few hundred times, once.
    count = len(symbols)
    chain = [0, *(index + 1 if index + 1 < count else 0 for index in range(1, count))]
    table = struct.pack(f"<III{count}I", 1, count, 1 if count > 1 else 0, *chain)

    parts: dict[str, tuple[int, bytes]] = {}
    at = code_at
    for name, data in (
        ("code", _FAIL),
        ("hash", table),
        ("symbols", b"".join(symbols)),
        ("strings", strings.data()),
        ("marks", struct.pack(f"<{count}H", *marks)),
        ("definitions", definitions),
    ):
        at = -(-at // 8) * 8
        parts[name] = (at, data)
        at += len(data)
    text_end = at
    dynamic_at = -(-text_end // _PAGE) * _PAGE
    dynamic = b"".join(
        struct.pack("<QQ", tag, value)
        for tag, value in (
            (14, soname),  # DT_SONAME
            (4, parts["hash"][0]),  # DT_HASH
            (5, parts["strings"][0]),  # DT_STRTAB
            (6, parts["symbols"][0]),  # DT_SYMTAB
            (10, len(parts["strings"][1])),  # DT_STRSZ
            (11, 24),  # DT_SYMENT
            (0x6FFFFFF0, parts["marks"][0]),  # DT_VERSYM
            (0x6FFFFFFC, parts["definitions"][0]),  # DT_VERDEF
            (0x6FFFFFFD, len(versions) + 1),  # DT_VERDEFNUM
            (0, 0),
        )
    )
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, text_end, text_end, _PAGE)
    segments += struct.pack("<IIQQQQQQ", 1, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), _PAGE)
    segments += struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8)
    image = bytearray(dynamic_at) + dynamic
    image[: len(header) + len(segments)] = header + segments
    for place, data in parts.values():
        image[place : place + len(data)] = data
    return bytes(image)


class _Strings:
    """A string table, each string once."""

    def __init__(self) -> None:
        self._data = bytearray(1)
        self._known: dict[str, int] = {}

    def add(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self._data)
            self._data += text.encode() + b"\0"
        return self._known[text]

    def data(self) -> bytes:
        return bytes(self._data)


def _elf_hash(name: str) -> int:
    """The hash of symbol versions (System V ABI, chapter 5)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        if high:
            value ^= high >> 24
        value &= ~high
    return value & 0xFFFFFFFF
