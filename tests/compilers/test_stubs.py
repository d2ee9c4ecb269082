"""Stand-ins for shared libraries: the system's loader takes them, and every function in them fails."""

import ctypes
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import namedtensor as nt
from namedtensor.compilers._stubs import Library, preload, shared_object, wanted


def write(path: Path, library: Library) -> Path:
    path.write_bytes(shared_object(library))
    return path


def test_a_stub_loads_and_its_functions_return_an_error(tmp_path: Path) -> None:
    symbols = {f"function_{i}": None if i % 3 else f"lib_{i % 5}.0" for i in range(200)}
    loaded = ctypes.CDLL(str(write(tmp_path / "libstub.so.7", Library("libstub.so.7", symbols))))
    assert all(getattr(loaded, name)() == 1 for name in symbols)
    with pytest.raises(AttributeError):
        _ = loaded.function_200


def test_a_stub_has_the_name_symbols_and_versions_that_were_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "lib", Library("libamdhip64.so.7", {"hipInit": "hip_4.2", "hipFree": "hip_6.0"}))
    with open(path, "rb") as file:
        segment = next(s for s in ELFFile(file).iter_segments() if s.header.p_type == "PT_DYNAMIC")
        assert [tag.soname for tag in segment.iter_tags() if tag.entry.d_tag == "DT_SONAME"] == ["libamdhip64.so.7"]
        assert sorted(symbol.name for symbol in segment.iter_symbols() if symbol.name) == ["hipFree", "hipInit"]
    data = path.read_bytes()
    assert b"hip_4.2\0" in data
    assert b"hip_6.0\0" in data


def test_a_library_without_symbols_loads_too(tmp_path: Path) -> None:
    ctypes.CDLL(str(write(tmp_path / "libempty.so", Library("libempty.so"))))


def test_nothing_is_wanted_of_libraries_that_every_system_has() -> None:
    import _ctypes

    assert wanted(Path(_ctypes.__file__)) == [] or all(
        not library.name.startswith(("libc.", "libm.", "libdl.")) for library in wanted(Path(_ctypes.__file__))
    )


def test_what_is_not_there_is_written_and_loaded_once(tmp_path: Path) -> None:
    import jaxlib

    # jaxlib's own library needs the system's alone, so no stub is made for it.
    library = next(Path(jaxlib.__file__).parent.glob("libjax_common.so"))
    assert preload(library, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_shared_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plugin.so"
    path.write_bytes(b"not an ELF file")
    with pytest.raises(nt.ModelError, match="not a shared library that can be read"):
        wanted(path)
