"""Linking: objects as an assembler would write them, and what must not get into an image."""

import struct
from dataclasses import dataclass, field

import pytest

import namedtensor as nt
from namedtensor.export.cpu._link import IMPORTS, PAGE, link

ABSOLUTE, PC32, PC64, ABSOLUTE_32 = 1, 2, 24, 10
ALLOC, WRITE, EXEC = 2, 1, 4


@dataclass
class Section:
    name: str
    data: bytes
    flags: int
    align: int = 16
    #: Offset, kind, symbol, addend.
    relocations: list[tuple[int, int, str, int]] = field(default_factory=list)


def assemble(sections: list[Section], defined: dict[str, tuple[str, int]]) -> bytes:
    """An ELF object with these sections and global symbols; other names that relocations need are undefined."""
    strings, names = bytearray(b"\0"), {}

    def string(text: str) -> int:
        if text not in names:
            names[text] = len(strings)
            strings.extend(text.encode() + b"\0")
        return names[text]

    indices = {section.name: i + 1 for i, section in enumerate(sections)}
    used = [name for section in sections for _, _, name, _ in section.relocations]
    symbols = [*defined, *dict.fromkeys(name for name in used if name not in defined)]
    table = bytes(24)
    for name in symbols:
        place, value = defined.get(name, ("", 0))
        table += struct.pack("<IBBHQQ", string(name), 1 << 4, 0, indices.get(place, 0), value, 0)
    strtab, symtab = len(sections) + 1, len(sections) + 2
    listed: list[tuple[str, int, int, bytes, int, int, int, int]] = [
        (section.name, 1, section.flags, section.data, 0, 0, section.align, 0) for section in sections
    ]
    listed += [(".strtab", 3, 0, b"", 0, 0, 1, 0), (".symtab", 2, 0, table, strtab, 1, 8, 24)]
    for section in sections:
        entries = b"".join(
            struct.pack("<QQq", offset, (symbols.index(name) + 1) << 32 | kind, addend)
            for offset, kind, name, addend in section.relocations
        )
        if entries:
            listed.append((".rela" + section.name, 4, 0, entries, symtab, indices[section.name], 8, 24))
    at = [string(name) for name, *_ in listed]
    body, headers = bytearray(64), [bytes(64)]
    for name_at, (_, kind, flags, data, linked, info, align, size) in zip(at, listed, strict=True):
        contents = bytes(strings) if kind == 3 else data
        headers.append(
            struct.pack("<IIQQQQIIQQ", name_at, kind, flags, 0, len(body), len(contents), linked, info, align, size)
        )
        body += contents
    ident = b"\x7fELF\2\1\1" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(headers), strtab)
    body[:64] = ident + head
    return bytes(body) + b"".join(headers)


def word(image: bytes | bytearray, at: int) -> int:
    return int.from_bytes(image[at : at + 8], "little")


def test_code_comes_first_and_addresses_are_left_to_the_runner() -> None:
    text = Section(".text", bytes(24), ALLOC | EXEC, relocations=[(0, ABSOLUTE, "table", 8), (8, ABSOLUTE, "sinf", 0)])
    data = Section(".rodata", bytes(32), ALLOC)
    image = link([("a", assemble([data, text], {"f": (".text", 16), "table": (".rodata", 0)}))], "main")
    assert (image.text, len(image.data)) == (PAGE, PAGE + 32)
    assert image.symbols == {"f": 16, "table": PAGE}
    assert (image.rebase, word(image.data, 0)) == ([0], PAGE + 8)
    assert (image.imports, word(image.data, 8)) == ({"sinf": [8]}, 0)


def test_distances_are_fixed_and_objects_find_each_other_in_any_order() -> None:
    first = assemble([Section(".text", bytes(16), ALLOC | EXEC, relocations=[(4, PC32, "g", -4)])], {"f": (".text", 0)})
    second = assemble([Section(".text", bytes(16), ALLOC | EXEC, relocations=[(8, PC64, "f", 0)])], {"g": (".text", 0)})
    images = [link(pair, "main") for pair in ([("a", first), ("b", second)], [("b", second), ("a", first)])]
    assert images[0] == images[1]
    assert images[0].symbols == {"f": 0, "g": 16}
    assert int.from_bytes(images[0].data[4:8], "little", signed=True) == 16 - 4 - 4
    assert int.from_bytes(images[0].data[24:32], "little", signed=True) == 0 - 24
    assert (images[0].rebase, images[0].imports) == ([], {})


@pytest.mark.parametrize(
    ("section", "report"),
    [
        (
            Section(".text", bytes(16), ALLOC | EXEC, relocations=[(0, ABSOLUTE, "system", 0)]),
            "calls system, which the runner",
        ),
        (Section(".text", bytes(16), ALLOC | EXEC, relocations=[(0, PC32, "sinf", -4)]), "calls sinf by distance"),
        (Section(".text", bytes(16), ALLOC | EXEC, relocations=[(0, ABSOLUTE_32, "f", 0)]), "not known .type 10."),
        (Section(".text", bytes(16), ALLOC | EXEC, relocations=[(9, ABSOLUTE, "f", 0)]), "not known"),
        (Section(".data", bytes(16), ALLOC | WRITE), "data of its own to write"),
        (Section(".rodata", bytes(16), ALLOC, align=4096), "aligned to 4096"),
    ],
    ids=["unknown import", "import by distance", "short address", "outside", "writable", "alignment"],
)
def test_what_cannot_be_linked_is_refused(section: Section, report: str) -> None:
    with pytest.raises(nt.ModelError, match=report):
        link([("a", assemble([section], {"f": (section.name, 0)}))], "main")


def test_a_name_that_two_objects_define_is_refused() -> None:
    one = assemble([Section(".text", bytes(16), ALLOC | EXEC)], {"f": (".text", 0)})
    with pytest.raises(nt.ModelError, match="f is defined twice"):
        link([("a", one), ("b", one)], "main")


@pytest.mark.parametrize("contents", [b"", b"\x7fELF", b"\x7fELF\2\1\1" + bytes(57)])
def test_what_is_no_object_is_refused(contents: bytes) -> None:
    with pytest.raises(nt.ModelError, match="no relocatable object"):
        link([("a", contents)], "main")


def test_unwinding_is_left_out() -> None:
    sections = [Section(".text", bytes(16), ALLOC | EXEC), Section(".eh_frame", bytes(16), ALLOC)]
    assert len(link([("a", assemble(sections, {"f": (".text", 0)}))], "main").data) == PAGE


def test_the_runner_knows_math_and_memory_and_nothing_of_the_system() -> None:
    assert {"memcpy", "sinf", "expf", "__truncsfhf2"} <= IMPORTS
    assert not {"open", "system", "malloc", "dlopen"} & IMPORTS
