"""`namedtensor version`: what is installed. Imports none of it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import click

from namedtensor.cli import _app, _output

# Packages that bring a platform, newest first. Of each platform the first that is installed counts.
_PLUGINS = {
    "cuda": ("jax-cuda13-pjrt", "jax-cuda12-pjrt"),
    "rocm": ("jax-rocm7-pjrt",),
    "tpu": ("libtpu",),
}

# Where the native CPU kernels lie; their module is not asked, because it imports jax.
_NATIVE = Path(__file__).parents[1] / "_native"


@click.command(short_help="Print versions, and the platforms that programs can run on here.")
@_app.as_json
@_app.debug
def command(as_json: bool) -> None:
    """Print the versions of namedtensor, Python, jax and jaxlib, and the platforms that programs can run on here.

    Kernels are the native contractions for CPU; without them XLA's own are used.

    A platform is listed when its plugin is installed; whether there is such a device shows when a model runs.
    """
    found = versions()
    if as_json:
        _output.print_json(found)
        return
    rows = {name: version or "not installed" for name, version in found.items() if isinstance(version, str | None)}
    rows["platforms"] = ", ".join(
        name if plugin is None else f"{name} ({plugin})" for name, plugin in found["platforms"].items()
    )
    width = max(map(len, rows))
    for name, text in rows.items():
        click.echo(f"{name:<{width}}  {text}")


def versions() -> dict[str, Any]:
    """Versions by package, and the platforms by name with the plugin that brings each."""
    from namedtensor import __version__

    platforms: dict[str, str | None] = {"cpu": None}
    for name, plugins in _PLUGINS.items():
        for plugin in plugins:
            version = _installed(plugin)
            if version is not None:
                platforms[name] = f"{plugin} {version}"
                break
    return {
        "namedtensor": __version__,
        "python": platform.python_version(),
        "jax": _installed("jax"),
        "jaxlib": _installed("jaxlib"),
        "kernels": "installed" if any(_NATIVE.glob("libnt_kernels.*")) else None,
        "platforms": platforms,
    }


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
