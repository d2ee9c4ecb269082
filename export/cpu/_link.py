"""A static linker for the relocatable objects that XLA:CPU emits: one image that runs wherever it is mapped.

The image is machine code, then read-only data. Distances within it are fixed here. Whoever maps it has left to
add the image's address to the words of one list, and the address of a function of its own to those of another.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from namedtensor._errors import ModelError, fail

_FUNCTIONS = """
    memcpy memmove memset
    acos acosf acosh acoshf asin asinf asinh asinhf atan atanf atan2 atan2f atanh atanhf cbrt cbrtf ceil ceilf
    cos cosf cosh coshf erf erff exp expf exp2 exp2f expm1 expm1f fabs fabsf floor floorf fma fmaf fmax fmaxf fmin fminf
    fmod fmodf log logf log10 log10f log1p log1pf log2 log2f nearbyint nearbyintf pow powf rint rintf round roundf
    roundeven roundevenf sin sincos sincosf sinf sinh sinhf sqrt sqrtf tan tanf tanh tanhf trunc truncf
    __truncsfbf2 __truncdfbf2 __truncsfhf2 __truncdfhf2 __extendhfsf2
"""

#: Functions that machine code may call: the runner (runner/cpu/src/imports.rs) has each of them, and no others.
IMPORTS = frozenset(_FUNCTIONS.split())

#: Code and data stand on pages of their own, so that each can be protected for what it is.
PAGE = 4096
_ALIGNMENT = 64
_WORD = struct.Struct("<Q")
_MASK = (1 << 64) - 1

# From the psABI of x86-64.
_ABSOLUTE_64 = 1
_RELATIVE = {2: 4, 4: 4, 24: 8}  # R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_PC64, and how many bytes each sets
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_TLS = 1, 2, 4, 1024


@dataclass
class Image:
    """Linked machine code."""

    data: bytearray
    #: Bytes of code, a multiple of `PAGE`; read-only data follow.
    text: int
    #: Where 64-bit words stand to which the image's address is to be added.
    rebase: list[int] = field(default_factory=list)
    #: By function of the runner's own, where 64-bit words stand to which its address is to be added.
    imports: dict[str, list[int]] = field(default_factory=dict)
    #: Entry points by name.
    symbols: dict[str, int] = field(default_factory=dict)


@dataclass
class _Object:
    name: str
    elf: Any
    #: Where each section that is loaded went, by its index.
    places: dict[int, int] = field(default_factory=dict)


def link(objects: Iterable[tuple[str, bytes]], what: str) -> Image:
    """Link objects, given as name and contents; `what` names the program in errors.

    Raises `ModelError` where an object is not one for x86-64, writes to data of its own, or needs a function that the
    runner does not have.
    """
    opened = [_open(name, contents, what) for name, contents in objects]
    opened.sort(key=lambda object: (sorted(_globals(object)), object.name))
    image = Image(bytearray(), 0)
    for executable in (True, False):
        for object in opened:
            for index, section in _loaded(object, what):
                if bool(section["sh_flags"] & _SHF_EXECINSTR) == executable and section["sh_size"] > 0:
                    _pad(image.data, max(section["sh_addralign"], 1 if not executable else 16), what)
                    object.places[index] = len(image.data)
                    image.data += section.data()
        if executable:
            image.data += bytes(-len(image.data) % PAGE)
            image.text = len(image.data)
    for object in opened:
        for name, (section_index, value) in _globals(object).items():
            if name in image.symbols:
                fail(f"{what}: {name} is defined twice", found={"second": object.name}, kind=ModelError)
            if section_index in object.places:
                image.symbols[name] = object.places[section_index] + value
    for object in opened:
        _relocate(image, object, what)
    image.rebase.sort()
    image.imports = {name: sorted(image.imports[name]) for name in sorted(image.imports)}
    return image


def _open(name: str, contents: bytes, what: str) -> _Object:
    try:
        elf = ELFFile(io.BytesIO(contents))
        if (elf["e_type"], elf["e_machine"], elf.elfclass) == ("ET_REL", "EM_X86_64", 64):
            return _Object(name, elf)
        found = f"{elf['e_type']} for {elf['e_machine']}"
    except ELFError as error:
        found = str(error) or "not an ELF file"
    fail(f"{what}: {name} is no relocatable object for x86-64", found={"object": found}, kind=ModelError)


def _loaded(object: _Object, what: str) -> Iterable[tuple[int, Section]]:
    for index, section in enumerate(object.elf.iter_sections()):
        flags = section["sh_flags"]
        # Unwinding is for exceptions, which kernels neither throw nor pass on.
        if not flags & _SHF_ALLOC or section.name == ".eh_frame" or section["sh_size"] == 0:
            continue
        if flags & (_SHF_WRITE | _SHF_TLS) or section["sh_type"] == "SHT_NOBITS":
            fail(f"{what}: {object.name} has data of its own to write ({section.name})", kind=ModelError)
        yield index, section


def _symbols(object: _Object) -> list[Any]:
    tables = [s for s in object.elf.iter_sections() if isinstance(s, SymbolTableSection)]
    return [symbol for table in tables for symbol in table.iter_symbols()]


def _globals(object: _Object) -> dict[str, tuple[int, int]]:
    """Sections and values of the names that other objects see."""
    return {
        symbol.name: (symbol["st_shndx"], symbol["st_value"])
        for symbol in _symbols(object)
        if symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK") and isinstance(symbol["st_shndx"], int)
    }


def _pad(data: bytearray, alignment: int, what: str) -> None:
    if alignment > _ALIGNMENT or alignment & (alignment - 1):
        fail(f"{what}: a section wants to be aligned to {alignment} bytes", kind=ModelError)
    data += bytes(-len(data) % alignment)


def _relocate(image: Image, object: _Object, what: str) -> None:
    symbols = _symbols(object)
    for section in object.elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in object.places:
            continue
        if not section.is_RELA():
            fail(f"{what}: {object.name} has relocations without addends", kind=ModelError)
        base = object.places[section["sh_info"]]
        size = object.elf.get_section(section["sh_info"])["sh_size"]
        for relocation in section.iter_relocations():
            kind, offset = relocation["r_info_type"], relocation["r_offset"]
            width = 8 if kind == _ABSOLUTE_64 else _RELATIVE.get(kind)
            symbol = symbols[relocation["r_info_sym"]]
            name = symbol.name or object.elf.get_section(symbol["st_shndx"]).name
            if width is None or offset + width > size:
                fail(
                    f"{what}: {object.name} refers to {name} in a way that is not known (type {kind})", kind=ModelError
                )
            place = base + offset
            target = _target(image, object, symbol)
            if target is None:
                _import(image, name, place, relocation["r_addend"], kind, what)
            elif kind == _ABSOLUTE_64:
                _WORD.pack_into(image.data, place, (target + relocation["r_addend"]) & _MASK)
                image.rebase.append(place)
            else:
                distance = target + relocation["r_addend"] - place
                if not -(1 << (8 * width - 1)) <= distance < 1 << (8 * width - 1):
                    fail(f"{what}: {name} is too far from where {object.name} refers to it", kind=ModelError)
                image.data[place : place + width] = distance.to_bytes(width, "little", signed=True)


def _target(image: Image, object: _Object, symbol: Any) -> int | None:
    """Where in the image a symbol is; None where no object defines it."""
    index = symbol["st_shndx"]
    if isinstance(index, int) and index in object.places:
        return object.places[index] + int(symbol["st_value"])
    return image.symbols.get(symbol.name)


def _import(image: Image, name: str, place: int, addend: int, kind: int, what: str) -> None:
    if name not in IMPORTS:
        fail(
            f"{what}: its machine code calls {name}, which the runner does not have",
            fix="express the operation that needs it by others, and report this",
            kind=ModelError,
        )
    if kind != _ABSOLUTE_64:
        fail(f"{what}: its machine code calls {name} by distance, though it is not within the image", kind=ModelError)
    _WORD.pack_into(image.data, place, addend & _MASK)
    image.imports.setdefault(name, []).append(place)
