"""The crates that a native program was made of, as it says itself in its section .dep-v0.

That is where cargo-auditable puts them, and where scanners look: compressed JSON, one entry for each crate.
runner/runner/build.rs writes it.
"""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from typing import Any

from elftools.elf.elffile import ELFFile

_SECTION = ".dep-v0"
# More than the list of any program has.
_LARGEST = 1 << 23


@dataclass(frozen=True)
class Crate:
    """A crate: `depends` are the places in the list of those that it uses."""

    name: str
    version: str
    license: str | None
    registry: bool
    root: bool
    depends: tuple[int, ...]


def crates(program: bytes) -> list[Crate]:
    """The crates of a program; none where it does not say, or says it in a way that is not understood."""
    try:
        section: Any = ELFFile(io.BytesIO(program)).get_section_by_name(_SECTION)
        if section is None:
            return []
        decompressor = zlib.decompressobj()
        packages = json.loads(decompressor.decompress(section.data(), _LARGEST))["packages"]
        return [_crate(package, len(packages)) for package in packages]
    # Whatever a damaged program leads the parsers to: the list is only there to be told.
    except Exception:
        return []


def _crate(package: dict[str, Any], count: int) -> Crate:
    depends = tuple(package.get("dependencies", ()))
    name, version, license = package["name"], package["version"], package.get("license")
    if not all(type(place) is int and 0 <= place < count for place in depends):
        raise ValueError(depends)
    if not all(isinstance(text, str) for text in (name, version, license or "")):
        raise ValueError(name)
    return Crate(name, version, license, package.get("source") == "crates.io", bool(package.get("root")), depends)
