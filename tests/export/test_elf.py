"""Shared libraries as files: what they need in turn, and what is left of one that was trimmed."""

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from namedtensor import ModelError
from namedtensor.export.archive._elf import closure, needs, trim

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


def shared(directory: Path, name: str, source: str, *needed: Path) -> Path:
    code = directory / f"{name}.c"
    code.write_text(source)
    path = directory / name
    command: list[str | Path] = [
        "cc",
        "-shared",
        "-fPIC",
        "-g",
        f"-Wl,-soname,{name}",
        "-Wl,--no-as-needed",
        "-o",
        path,
        code,
        *needed,
    ]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """top needs left and right, both of which need bottom."""
    directory = tmp_path_factory.mktemp("libraries")
    bottom = shared(
        directory, "libbottom.so.1", "static int hidden(void) { return 40; } int one(void) { return hidden(); }"
    )
    left = shared(directory, "libleft.so.1", "int one(void); int left(void) { return one() + 1; }", bottom)
    right = shared(directory, "libright.so.1", "int one(void); int right(void) { return one() + 2; }", bottom)
    top = shared(
        directory,
        "libtop.so.1",
        "#include <stdlib.h>\nint left(void), right(void); int top(void) { return abs(left() - right()) + 41; }",
        left,
        right,
    )
    return {path.name: path for path in (bottom, left, right, top)}


def test_the_closure_holds_everything_after_what_it_needs(libraries: dict[str, Path]) -> None:
    found = closure([libraries["libtop.so.1"]], libraries.get)
    names = [path.name for path in found.libraries]
    assert sorted(names) == sorted(libraries)
    assert names[0] == "libbottom.so.1"
    assert names[-1] == "libtop.so.1"
    assert found.host == ()
    assert (2, 0) < found.glibc < (3, 0)


def test_what_is_not_to_be_packed_the_machine_brings(libraries: dict[str, Path]) -> None:
    found = closure([libraries["libtop.so.1"]], {"libleft.so.1": libraries["libleft.so.1"]}.get)
    assert [path.name for path in found.libraries] == ["libleft.so.1", "libtop.so.1"]
    assert found.host == ("libbottom.so.1", "libright.so.1")


def test_libraries_that_need_each_other_come_to_an_end(tmp_path: Path) -> None:
    first = shared(tmp_path, "liba.so", "int a(void) { return 1; }")
    second = shared(tmp_path, "libb.so", "int b(void) { return 2; }", first)
    shared(tmp_path, "liba.so", "int a(void) { return 1; }", second)
    found = closure([first], {"liba.so": first, "libb.so": second}.get)
    assert [path.name for path in found.libraries] == ["libb.so", "liba.so"]


def test_a_trimmed_library_loads_and_has_only_what_is_loaded(libraries: dict[str, Path], tmp_path: Path) -> None:
    for name, path in libraries.items():
        saved = trim(path, tmp_path / name)
        assert saved == path.stat().st_size - (tmp_path / name).stat().st_size
        assert saved > 1000
        assert needs(tmp_path / name) == needs(path)
    with open(tmp_path / "libbottom.so.1", "rb") as file:
        sections = {section.name: section for section in ELFFile(file).iter_sections()}
        assert sections[".dynsym"].get_symbol_by_name("one")
        assert ".symtab" not in sections
        assert not any(name.startswith(".debug") for name in sections)
    for name in ("libbottom.so.1", "libleft.so.1", "libright.so.1"):
        ctypes.CDLL(str(tmp_path / name), mode=ctypes.RTLD_GLOBAL)
    assert ctypes.CDLL(str(tmp_path / "libtop.so.1")).top() == 42


def test_what_is_no_shared_library_is_refused_in_one_line(libraries: dict[str, Path], tmp_path: Path) -> None:
    original = libraries["libtop.so.1"].read_bytes()
    path = tmp_path / "damaged.so"
    generator = random.Random(3)
    for size in (0, 3, 63, 64, 200):
        path.write_bytes(original[:size])
        with pytest.raises(ModelError):
            trim(path, tmp_path / "out")
    for _ in range(50):
        data = bytearray(original)
        for _ in range(3):
            data[generator.randrange(64)] = generator.randrange(256)
        path.write_bytes(data)
        try:
            trim(path, tmp_path / "out")
            needs(path)
        except ModelError as error:
            assert "\n" not in str(error)
