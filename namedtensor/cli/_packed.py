"""`inspect` of an archive: what it holds and for which targets, without unpacking it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor.cli import _output

if TYPE_CHECKING:
    from namedtensor.export.archive import Contents


def show(path: Path, *, verify: bool, as_json: bool) -> None:
    """Print an archive's contents. Raises `InputError` where it cannot be read."""
    from namedtensor.export import archive

    contents = archive.read(path, verify=verify)
    if as_json:
        _output.print_json({"archive": path, "bytes": contents.bytes, "verified": verify, "bundle": contents.manifest})
        return
    table = _output.table("file", "bytes", "sha256", right="bytes")
    for file in contents.files:
        table.add_row(file.path, _output.nbytes(file.bytes), file.sha256[:16])
    click.echo(_title(contents))
    click.echo()
    _output.print_table(table)
    click.echo()
    for target in contents.manifest["targets"]:
        click.echo(f"{target['name']}: {_target(target)}")
    for platform, plugin in contents.manifest["plugins"].items():
        click.echo(f"{platform}: {_plugin(plugin)}")
    if not contents.manifest["weights"].get("file"):
        click.echo("The weights are outside: give the program their file or its https:// address (--weights).")
    left_out = _left_out(contents.manifest)
    if left_out:
        table = _output.table("left out", "of", "why")
        for row in left_out:
            table.add_row(*row)
        click.echo()
        _output.print_table(table)
    if verify:
        click.echo("\nEvery file has the digest that stands in bundle.json.")


def _title(contents: Contents) -> str:
    variants = [str(v.get("name")) for entry in contents.manifest["entries"] for v in entry["variants"]]
    unpacked = sum(file.bytes for file in contents.files)
    return (
        f"{contents.name}: {contents.manifest['task'].get('task')}; {', '.join(variants)}; "
        f"{_output.nbytes(contents.bytes)}, unpacked {_output.nbytes(unpacked)}"
    )


def _target(target: dict[str, Any]) -> str:
    count = len(target["executables"])
    executables = f"{count} executable" + "s" * (count != 1)
    if target["name"].startswith("cpu:"):
        return f"{executables}, run by the archive's own program"
    return f"{executables}, calling {_listed(target.get('libraries')) or 'no vendor library'}"


def _plugin(plugin: dict[str, Any]) -> str:
    releases = _listed([f"{name} {version}" for name, version in plugin["releases"].items()])
    here = "the plugin is packed" if plugin.get("library") else "the plugin is outside: give it to the program"
    glibc = f", glibc {plugin['glibc']}" if plugin.get("glibc") else ""
    return f"{here} ({releases}); the machine brings {_listed(plugin.get('host')) or 'its driver'}{glibc}"


def _left_out(manifest: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (str(name), platform, str(why))
        for platform, plugin in manifest["plugins"].items()
        for name, why in plugin["left_out"].items()
    ]


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) else ""
