"""Images to build upon: their layers are taken as they are, by digest, and their configuration is merged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from namedtensor._errors import InputError
from namedtensor.checkpoint import _json
from namedtensor.export.oci import _media
from namedtensor.export.oci._layout import Descriptor, Layout, Writer

_LOCAL = "oci:"
# More than the longest history of any image has.
_LARGEST_CONFIG = 1 << 22
PLATFORM = {"architecture": "amd64", "os": "linux"}


@dataclass(frozen=True)
class Base:
    """An image to build upon: as it was named, its digest, its layers as OCI names them, and its configuration.

    `blob` opens a layer.
    """

    name: str
    digest: str
    layers: tuple[Descriptor, ...]
    config: dict[str, Any]
    blob: Callable[[Descriptor], BinaryIO]

    @property
    def diff_ids(self) -> list[str]:
        return list(self.config["rootfs"]["diff_ids"])

    def write(self, layout: Writer) -> None:
        """Take the layers over."""
        for descriptor in {one["digest"]: one for one in self.layers}.values():
            with self.blob(descriptor) as stream:
                layout.copy(stream, descriptor)


@contextlib.contextmanager
def base(reference: str, *, plain_http: bool = False, ca_file: Path | None = None) -> Iterator[Base]:
    """An image of a registry, or of a layout here: `oci:PATH` or `oci:PATH:TAG`.

    `plain_http` and `ca_file` are for the registry, as its `Client` takes them.

    Raises `InputError` where it is none for Linux on x86-64, `RegistryError` where a registry does not give it.
    """
    if reference.startswith(_LOCAL):
        path, _, tag = reference.removeprefix(_LOCAL).partition(":")
        with Layout(Path(path)) as layout:
            image = layout.image(tag or None)
            if image.get("mediaType") in _media.INDEXES:
                image = _for_platform(layout, image)
            manifest = layout.manifest(image)
            if not isinstance(manifest.get("config"), dict):
                raise InputError(f"{path}: the image has no configuration")
            config, layers = layout.manifest(manifest["config"]), layout.layers(manifest)
            # The path of a layout says nothing to whoever pulls the image.
            yield _checked("", image["digest"], config, layers, lambda layer: layout.stream(layer["digest"]), path)
        return
    from namedtensor.export.oci.registry import Client, Reference

    name = Reference.parse(reference)
    with Client(plain_http=plain_http, ca_file=ca_file) as client:
        pulled = client.manifest(name)
        if pulled.config is None or pulled.config.size > _LARGEST_CONFIG:
            raise InputError(f"{name}: the image has no configuration of at most {_LARGEST_CONFIG:,} bytes")
        config = _json.parse(client.blob(name, pulled.config).read_bytes(), str(name))
        blobs = {layer.digest: layer for layer in pulled.layers}
        layers = [layer.json() for layer in pulled.layers]
        digest = pulled.descriptor.digest
        yield _checked(
            str(name), digest, config, layers, lambda layer: client.blob(name, blobs[layer["digest"]]).open("rb"), name
        )


def _checked(
    name: str,
    digest: str,
    config: Any,
    layers: Sequence[Descriptor],
    blob: Callable[[Descriptor], BinaryIO],
    where: object,
) -> Base:
    """What is merged and passed on has to be what the specification says."""
    if not isinstance(config, dict):
        raise InputError(f"{where}: the image's configuration is no object")
    for key, value in PLATFORM.items():
        if config.get(key) != value:
            raise InputError(f"{where}: the image is for {key} {config.get(key)!r}, not {value!r}")
    rootfs, started = config.get("rootfs"), config.get("config") or {}
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(layers) or not all(isinstance(d, str) for d in diff_ids):
        raise InputError(f"{where}: the image's configuration is of other layers than its manifest")
    environment = started.get("Env") or [] if isinstance(started, dict) else None
    labels = started.get("Labels") or {} if isinstance(started, dict) else None
    strings = [*environment, *labels.values()] if isinstance(environment, list) and isinstance(labels, dict) else [None]
    if not all(isinstance(one, str) for one in strings):
        raise InputError(f"{where}: the image's configuration is none of OCI's")
    return Base(name, digest, tuple(_converted(layer, where) for layer in layers), config, blob)


def _for_platform(layout: Layout, image: Descriptor) -> Descriptor:
    for one in layout.manifest(image).get("manifests") or []:
        platform = one.get("platform") if isinstance(one, dict) else None
        if isinstance(platform, dict) and all(platform.get(key) == value for key, value in PLATFORM.items()):
            found: Descriptor = one
            return found
    raise InputError(f"{layout.path}: the image is not for Linux on x86-64")


def _converted(layer: Descriptor, where: object) -> Descriptor:
    """A layer under the name that OCI has for its kind."""
    kind = layer.get("mediaType")
    if kind == _media.DOCKER_LAYER:
        kind = f"{_media.LAYER}+gzip"
    if kind not in (_media.LAYER, f"{_media.LAYER}+gzip", f"{_media.LAYER}+zstd"):
        raise InputError(f"{where}: a layer is {kind}, which cannot be passed on")
    return {"mediaType": kind, "digest": layer["digest"], "size": layer["size"]}
