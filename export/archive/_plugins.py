"""`plugins/` of an archive: what runs the executables of accelerators, and no more of it than they call."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from namedtensor._errors import ModelError
from namedtensor.compilers import _plugins
from namedtensor.export.archive._elf import closure, trim

# The oldest glibc that a target machine may have.
GLIBC = (2, 28)

_WORTH_TELLING = 1 << 20
_UNUSED = "no executable calls it"


@dataclass(frozen=True)
class _Platform:
    """What is known of a platform's plugin that its own tables do not say.

    - `host`: loaded by name when it starts, and a part of the driver.
    - `always`: loaded by name when it starts, whatever runs.
    - `called`: by XLA's name for a vendor's library, the names of those that stand for it.
    - `packages`: where each library of a name comes from; what is in none of them, the machine must have.
    - `data`: files that it needs to compile on the spot, and where they were unpacked.
    - `left_out`: what is never packed, and why.
    """

    host: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    called: dict[str, tuple[str, ...]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


# cuDNN loads its own parts by name, as far as they are called.
_CUDNN = tuple(
    f"libcudnn{part}.so.9"
    for part in ("", "_graph", "_ops", "_cnn", "_heuristic", "_engines_precompiled", "_engines_runtime_compiled")
)

_PLATFORMS = {
    "cuda": _Platform(
        host=("libcuda.so.1",),
        # The plugin's own kernels are registered with CUDA's runtime as it is loaded.
        always=("libcudart.so.13",),
        called={
            "cublas": ("libcublas.so.13",),
            "cublasLt": ("libcublasLt.so.13",),
            "cudnn": (*_CUDNN, "libnvrtc.so.13"),
            "cufft": ("libcufft.so.12",),
            "cusolver": ("libcusolver.so.12",),
            "cusparse": ("libcusparse.so.12",),
        },
        packages={
            "libcudart.so.13": "nvidia-cuda-runtime",
            "libcublas.so.13": "nvidia-cublas",
            "libcublasLt.so.13": "nvidia-cublas",
            **dict.fromkeys(_CUDNN, "nvidia-cudnn-cu13"),
            "libcufft.so.12": "nvidia-cufft",
            "libcusolver.so.12": "nvidia-cusolver",
            "libcusparse.so.12": "nvidia-cusparse",
            "libnvJitLink.so.13": "nvidia-nvjitlink",
            "libnvrtc.so.13": "nvidia-cuda-nvrtc",
        },
        data={
            "bin/ptxas": "nvidia/cu13/bin/ptxas",
            "nvvm/libdevice/libdevice.10.bc": "nvidia/cu13/nvvm/libdevice/libdevice.10.bc",
        },
        left_out={
            "libnccl.so.2": "a program runs on one chip",
            "libcupti.so.13": "for profilers",
            "libcudnn_adv.so.9": "for recurrent networks",
        },
    ),
    # The plugin is linked with every library of ROCm that it could call.
    "rocm": _Platform(left_out={"ROCm's libraries": "on no package registry; the machine's own ROCm has them"}),
    "tpu": _Platform(),
}


def pack(platform: str, called: Iterable[str], root: Path, *, inside: bool) -> dict[str, Any]:
    """Put a platform's plugin and the libraries that it needs into an archive's directory, `root`.

    `called` are XLA's names of the vendor's libraries that executables call. Without `inside` nothing is packed: who
    runs the archive gives the plugin. Returns: the entry in `plugins` of `bundle.json`.

    Raises `ModelError` where something cannot be had, or needs a newer glibc than an archive may.
    """
    known = _PLATFORMS[platform]
    releases = _plugins.releases(platform)
    names = [*known.always, *(name for library in sorted(set(called)) for name in known.called.get(library, ()))]
    left_out = dict(known.left_out)
    if not inside:
        left_out["the plugin"] = "whoever runs the archive says where it is"
        return _entry(releases, sorted({*known.host, *names}), None, left_out)
    plugin = _plugins.plugin(platform)

    def find(name: str) -> Path | None:
        package = known.packages.get(name)
        return None if package is None else _plugins.library(package, name)

    needed = closure([path for name in names if (path := find(name)) is not None], find)
    everything = closure([plugin.library, *needed.libraries], find)
    if everything.glibc > GLIBC:
        raise ModelError(f"{platform}: its libraries need glibc {_version(everything.glibc)}, newer than 2.28")
    packed = {path.name for path in needed.libraries}
    releases |= _releases(known.packages[name] for name in packed)
    left_out |= {name: _UNUSED for names in known.called.values() for name in names if name not in packed}
    directory = root / "plugins" / platform
    directory.mkdir(parents=True)
    files = (plugin.library, *needed.libraries)
    with ThreadPoolExecutor() as pool:
        saved = dict(zip(files, pool.map(lambda path: trim(path, directory / path.name), files), strict=True))
    left_out |= {
        f"symbols of {path.name}": f"{size / 1e6:.0f} MB that only debuggers read"
        for path, size in saved.items()
        if size > _WORTH_TELLING
    }
    for name, place in known.data.items():
        path = directory / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plugin.root / place, path)
    return _entry(releases, sorted({*known.host, *everything.host}), everything.glibc, left_out) | {
        "library": f"plugins/{platform}/{plugin.library.name}",
        "libraries": [f"plugins/{platform}/{path.name}" for path in needed.libraries],
        "data": f"plugins/{platform}/data" if known.data else None,
    }


def fetch(platform: str) -> None:
    """Bring what every archive for a platform holds into the cache: its plugin, and the libraries that all need.

    Raises `ModelError` where something cannot be had.
    """
    known = _PLATFORMS[platform]
    _plugins.plugin(platform)
    for name in known.always:
        if name in known.packages:
            _plugins.library(known.packages[name], name)


def _entry(
    releases: dict[str, str], host: list[str], glibc: tuple[int, ...] | None, left_out: dict[str, str]
) -> dict[str, Any]:
    return {
        "releases": dict(sorted(releases.items())),
        "library": None,
        "libraries": [],
        "data": None,
        "host": host,
        "glibc": None if glibc is None else _version(glibc),
        "left_out": dict(sorted(left_out.items())),
    }


def _releases(packages: Iterable[str]) -> dict[str, str]:
    every = _plugins.releases("cuda-libraries")
    return {package: every[package] for package in packages}


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
