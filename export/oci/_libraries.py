"""The system's shared libraries that a plugin needs: found on the building machine, with what says whose they are."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from namedtensor._errors import ModelError
from namedtensor.export.oci._layers import LayerWriter

# Where images have them. Two links lead there: /lib64, since the interpreter's path is part of the ABI, and the
# directory that an interpreter of Debian looks into.
DIRECTORY = "usr/lib64"
INTERPRETER = "ld-linux-x86-64.so.2"
# What belongs to glibc: its parts are of one release and are loaded without being named.
GLIBC = (INTERPRETER, "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1")
USER = 65532

_PLACES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
# Of the GPU's driver: they fit the kernel module of the machine, so the container runtime mounts that machine's own.
_DRIVER = re.compile(r"lib(cuda|cudadebugger|nvidia-[a-z0-9-]+|nvcuvid|nvoptix)\.so(\.[0-9]+)*")
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
_BLOCK = 1 << 20
# Free licenses that ask for the text to be passed on with the library; systems that say whose a file is have it.
_LICENSES = (
    (re.compile("|".join(map(re.escape, GLIBC))), "LGPL-2.1-or-later"),
    (re.compile(r"lib(gcc_s|stdc\+\+|gomp|atomic)\.so.*"), "GPL-3.0-or-later WITH GCC-exception-3.1"),
    (re.compile(r"libz\.so.*"), "Zlib"),
)


@dataclass(frozen=True)
class Package:
    """The package of the building machine's system that a library is of."""

    name: str
    version: str
    url: str
    copyright: Path | None


@dataclass(frozen=True)
class Library:
    """A shared library by the name that programs ask for, its file, its license where that is known."""

    name: str
    path: Path
    license: str
    package: Package | None


def collect(names: Iterable[str], *, glibc: str | None) -> list[Library]:
    """glibc, the libraries of these names and all that they need in turn, but those of a driver.

    `glibc`: the release that the plugin asks for. Raises `ModelError` where this machine does not have them.
    """
    ours = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    release = (ours or "").removeprefix("glibc ")
    if not release or (glibc is not None and ordered(release) < ordered(glibc)):
        raise ModelError(
            f"the plugin needs glibc {glibc}, and this machine has {release or 'none'}: "
            "--base IMAGE takes those of an image"
        )
    found: dict[str, Path] = {}
    wanted = [*GLIBC, *names]
    while wanted:
        name = wanted.pop()
        if name in found or _DRIVER.fullmatch(name):
            continue
        found[name] = _find(name)
        wanted += _needed(found[name])
    return [Library(name, path, _license(name), _package(path)) for name, path in sorted(found.items())]


def write(layer: LayerWriter, libraries: Iterable[Library]) -> None:
    """Write what makes the lowest layer of an image with plugins: libraries, licenses, a user, and room for files."""
    layer.directory(DIRECTORY)
    layer.link("lib64", DIRECTORY)
    layer.link("usr/lib/x86_64-linux-gnu", "../lib64")
    layer.directory("tmp", 0o1777)
    for path, text in (
        ("etc/group", f"nonroot:x:{USER}:\n"),
        ("etc/passwd", f"nonroot:x:{USER}:{USER}:nonroot:/tmp:/sbin/nologin\n"),
    ):
        layer.file(path, len(text), [text.encode()])
    texts: dict[str, Path] = {}
    for library in libraries:
        _copy(layer, f"{DIRECTORY}/{library.name}", library.path, runs=library.name == INTERPRETER)
        if library.package is not None and library.package.copyright is not None:
            texts[library.package.name] = library.package.copyright
    for name, text_file in sorted(texts.items()):
        _copy(layer, f"usr/share/doc/{name}/copyright", text_file)


def _copy(layer: LayerWriter, name: str, path: Path, *, runs: bool = False) -> None:
    with open(path, "rb") as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        layer.file(name, os.fstat(file.fileno()).st_size, blocks, runs=runs)


def ordered(release: str) -> list[int]:
    """A release of glibc, to compare."""
    return [int(number) for number in re.findall(r"\d+", release)]


def _find(name: str) -> Path:
    if _NAME.fullmatch(name):
        for place in _PLACES:
            path = Path(place, name)
            if path.is_file():
                return path
    raise ModelError(
        f"the plugin needs {name!r}, which is not among this machine's libraries: --base IMAGE takes those of an image"
    )


def _needed(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            for section in ELFFile(file).iter_sections():
                if isinstance(section, DynamicSection):
                    tags: Any = section.iter_tags("DT_NEEDED")
                    yield from (tag.needed for tag in tags)
    except ELFError as error:
        raise ModelError(f"{path} is no library ({error}); --base IMAGE takes those of an image") from error


def _license(name: str) -> str:
    return next((license for pattern, license in _LICENSES if pattern.fullmatch(name)), "NOASSERTION")


def _package(path: Path) -> Package | None:
    """Whose a file is, as dpkg or rpm knows it."""
    # Where /lib is a link to /usr/lib, the lists may have either name.
    real = path.resolve()
    names = dict.fromkeys(
        name for file in (path, real) for name in (str(file), str(file).removeprefix("/usr"), f"/usr{file}")
    )
    for name in names:
        owner = _asked("dpkg-query", "--search", name).partition(": ")[0]
        if owner and "," not in owner:
            fields = _asked("dpkg-query", "--show", "-f", "${Package}\t${Version}\t${Architecture}", owner).split("\t")
            if len(fields) == 3:
                package, version, architecture = fields
                url = f"pkg:deb/{_system()}/{package}@{version.replace('+', '%2B')}?arch={architecture}"
                text = Path("/usr/share/doc", package, "copyright")
                return Package(package, version, url, text if text.is_file() else None)
    fields = _asked("rpm", "-qf", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n", str(real)).split("\t")
    if len(fields) == 3:
        package, version, architecture = fields
        return Package(package, version, f"pkg:rpm/{_system()}/{package}@{version}?arch={architecture}", None)
    return None


def _asked(*command: str) -> str:
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _system() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "linux"
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("ID", "linux").strip('"')
