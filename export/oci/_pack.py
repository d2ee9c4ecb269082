"""From an archive to the layers of an image, in one pass over the archive."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namedtensor._errors import InputError
from namedtensor.export.archive import Contents, Member, opened
from namedtensor.export.archive._compress import MANIFEST, RUNNER, runs
from namedtensor.export.oci._layers import Layer, LayerWriter, layer
from namedtensor.export.oci._layout import Writer

# Where a program looks for files whose paths are not absolute: what is mounted there can be named without a path.
WORKING_DIRECTORY = "data"

# Other names of the root directory mean something to the system libraries or to what runs containers.
_TAKEN = (
    *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr"),
    *("var", "weights", WORKING_DIRECTORY),
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Weights of this size have a layer of their own; smaller ones share one.
_LARGE = 1 << 26
# More than any runner has.
_LARGEST_RUNNER = 1 << 26


@dataclass(frozen=True)
class Packed:
    """An archive's layers, the lowest first, its contents, its own digest, and its runners by their paths."""

    contents: Contents
    digest: str
    layers: tuple[Layer, ...]
    runners: dict[str, bytes]

    @property
    def targets(self) -> list[str]:
        return [target["name"] for target in self.contents.manifest["targets"]]


def plugins(contents: Contents) -> dict[str, dict[str, Any]]:
    """By platform, what `bundle.json` says of its plugin."""
    listed = contents.manifest.get("plugins")
    found = listed if isinstance(listed, dict) else {}
    return {platform: plugin for platform, plugin in found.items() if isinstance(plugin, dict)}


def dynamic(contents: Contents) -> bool:
    """Whether there is a runner that needs the system's libraries."""
    return any(member.path == RUNNER for member in contents.files)


def pack(archive: Path, layout: Writer, compression: str, on_step: Callable[[str], None]) -> Packed:
    """Write the files of an archive as layers, those that change least often first.

    Raises `InputError` where the archive cannot be read, or has a name that a root directory has a use for.
    """
    with opened(archive) as source, contextlib.ExitStack() as stack:
        contents = source.contents
        name = contents.name
        if name in _TAKEN:
            raise InputError(
                f"{archive}: {name} is the name of a directory of the system; build the model with another"
            )
        if not _DIGEST.fullmatch(str(contents.manifest["weights"].get("sha256"))):
            raise InputError(f"{archive}: {MANIFEST} has no digest of the weights")
        writers: dict[str, LayerWriter] = {}
        for title, expected in _plan(contents).items():
            on_layer = layer(layout, title, compression, expected=expected, dense=title.startswith("weights"))
            writers[title] = stack.enter_context(on_layer)
        writers["runner"].directory(WORKING_DIRECTORY)
        runners: dict[str, list[bytes]] = {}
        for member, blocks in source.members():
            title = _title(contents, member)
            on_step(f"{title}: {member.path}")
            if member.path in (name, RUNNER):
                if member.bytes > _LARGEST_RUNNER:
                    raise InputError(f"{archive}: the runner has {member.bytes:,} bytes")
                blocks = _keeping(blocks, runners.setdefault(member.path, []))
            writers[title].file(f"{name}/{member.path}", member.bytes, blocks, runs=runs(member.path, name))
        writers["contents"].file(f"{name}/{MANIFEST}", len(source.text), [source.text])
        if name not in runners:
            raise InputError(f"{archive}: the archive has no runner")
        stack.close()
        layers = tuple(writer.layer for writer in writers.values() if writer.layer is not None)
        return Packed(contents, source.digest(), layers, {path: b"".join(kept) for path, kept in runners.items()})


def _plan(contents: Contents) -> dict[str, int]:
    """Titles of the layers, the lowest first, each with the bytes of its files.

    What changes least lies lowest, so that whoever has an older image unpacks again as little as can be. The list of
    contents changes with every file, so it comes last, in a layer of its own.
    """
    sizes: dict[str, int] = {"runner": 0}
    for member in contents.files:
        title = _title(contents, member)
        sizes[title] = sizes.get(title, 0) + member.bytes
    order = ("plugin", "runner", "assets", "programs", "weights")
    titles = sorted(sizes, key=lambda title: (order.index(title.split()[0]), title))
    return {**{title: sizes[title] for title in titles}, "contents": 0}


def _title(contents: Contents, member: Member) -> str:
    """The layer that a file belongs to."""
    first, _, rest = member.path.partition("/")
    if first == "plugins" and "/" in rest:
        return f"plugin {rest.partition('/')[0]}"
    if first in (contents.name, "plugins"):
        return "runner"
    if first == "weights":
        return f"weights {rest}" if member.bytes >= _LARGE else "weights"
    return first if first == "assets" else "programs"


def _keeping(blocks: Iterable[bytes], kept: list[bytes]) -> Iterator[bytes]:
    for block in blocks:
        kept.append(block)
        yield block
