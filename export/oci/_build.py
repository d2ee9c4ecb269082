"""From archives to a layout: an image of each, and an index of them where there are several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namedtensor._errors import InputError
from namedtensor.export.archive import Contents, read
from namedtensor.export.oci import _config, _libraries, _media, _provenance, _sbom
from namedtensor.export.oci._base import PLATFORM, Base, base
from namedtensor.export.oci._config import Choices
from namedtensor.export.oci._layers import Layer, layer
from namedtensor.export.oci._layout import Descriptor, Writer, encode, writing
from namedtensor.export.oci._libraries import Library
from namedtensor.export.oci._pack import dynamic, pack, plugins
from namedtensor.export.oci._weights import is_weights, weights
from namedtensor.zoo import ChoiceError


@dataclass(frozen=True)
class Image:
    """An image that was made: of which archive, under which digest, of which layers (without those of its base)."""

    archive: Path
    descriptor: Descriptor
    targets: tuple[str, ...]
    layers: tuple[Layer, ...]
    config: int
    base_bytes: int

    @property
    def bytes(self) -> int:
        """What a machine pulls that has nothing of it."""
        layers = sum(layer.descriptor["size"] for layer in self.layers)
        return int(self.descriptor["size"]) + self.config + layers + self.base_bytes


@dataclass(frozen=True)
class Report:
    """A layout that was made: under which tag it has what, and what refers to it."""

    path: Path
    tag: str
    descriptor: Descriptor
    images: tuple[Image, ...]
    referrers: tuple[Descriptor, ...]


def build(
    archives: Sequence[Path],
    output: Path,
    *,
    tag: str = "latest",
    compression: str = "zstd",
    on: str | None = None,
    plain_http: bool = False,
    ca_file: Path | None = None,
    choices: Choices | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Report:
    """Write a layout with the images of archives, to a directory or, where `output` ends in .tar, to a file.

    Of several archives there is an index, which has the tag. A .safetensors file becomes an image of weights alone.
    `on` is an image to build upon, and `plain_http` and `ca_file` for its registry, as `base` takes them. The same
    archives give the same digests. `output` appears when it is complete, or not at all.

    Raises `InputError` for an archive or a base image that cannot be read, `ModelError` where this machine has not the
    libraries that a plugin needs.
    """
    chosen = Choices() if choices is None else choices
    if any(map(is_weights, archives)) and (len(archives) > 1 or on is not None):
        raise ChoiceError("an image of weights is of one file and upon no other image")
    with ExitStack() as stack:
        below = stack.enter_context(base(on, plain_http=plain_http, ca_file=ca_file)) if on is not None else None
        layout = stack.enter_context(writing(output))
        if below is not None:
            on_step("base image")
            below.write(layout)
        images, referrers = [], []
        for archive in archives:
            if is_weights(archive):
                images.append(_weights(archive, layout, compression, chosen))
                continue
            image, about = _image(archive, layout, below, compression, chosen, on_step)
            images.append(image)
            referrers += about
        named = images[0].descriptor if len(images) == 1 else _index(layout, images)
        tagged = {**named, "annotations": {**named.get("annotations", {}), _media.REF_NAME: tag}}
        layout.finish([tagged, *referrers])
    return Report(output, tag, named, tuple(images), tuple(referrers))


def _image(
    archive: Path,
    layout: Writer,
    below: Base | None,
    compression: str,
    choices: Choices,
    on_step: Callable[[str], None],
) -> tuple[Image, list[Descriptor]]:
    contents = read(archive)
    libraries: list[Library] = []
    if below is None and dynamic(contents):
        # Before anything large is read: where they are missing, nothing else helps.
        libraries = _libraries.collect(_host(contents), glibc=_glibc(contents))
    packed = pack(archive, layout, compression, on_step)
    layers = [*_system(layout, libraries, compression), *packed.layers]
    config = layout.add(encode(_config.config(packed, layers, below, choices)), _media.CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "config": config,
        "layers": [*(below.layers if below else ()), *(layer.descriptor for layer in layers)],
        "annotations": _config.described(packed, below, choices),
    }
    image = layout.add(encode(manifest), _media.MANIFEST)
    bill = _sbom.document(packed, image, below, libraries, choices)
    origin = _provenance.statement(packed, image, below, libraries, choices, compression)
    referrers = [
        _referrer(layout, image, bill, _media.SPDX, {}),
        _referrer(layout, image, origin, _media.IN_TOTO, {"in-toto.io/predicate-type": _provenance.PREDICATE}),
    ]
    below_bytes = sum(one["size"] for one in below.layers) if below else 0
    made = Image(archive, image, tuple(packed.targets), tuple(layers), config["size"], below_bytes)
    return made, referrers


def _weights(path: Path, layout: Writer, compression: str, choices: Choices) -> Image:
    image, made, config = weights(path, layout, compression, choices.version)
    return Image(path, image, (), (made,), config, 0)


def _index(layout: Writer, images: Sequence[Image]) -> Descriptor:
    """An image index. All of its images are for one platform: annotations say which accelerators each is for."""
    digests = [image.descriptor["digest"] for image in images]
    if len(set(digests)) != len(digests):
        raise InputError(f"{images[-1].archive}: two of the archives are the same")
    listed = [
        {**image.descriptor, "platform": PLATFORM, "annotations": {_config.TARGETS: ",".join(image.targets)}}
        for image in images
    ]
    return layout.add(encode({"schemaVersion": 2, "mediaType": _media.INDEX, "manifests": listed}), _media.INDEX)


def _referrer(
    layout: Writer, subject: Descriptor, document: dict[str, Any], kind: str, annotations: dict[str, str]
) -> Descriptor:
    """A document about an image, which registries list when they are asked what refers to it."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "artifactType": kind,
        "config": layout.add(b"{}", _media.EMPTY),
        "layers": [layout.add(encode(document), kind)],
        "subject": subject,
        **({"annotations": annotations} if annotations else {}),
    }
    return {**layout.add(encode(manifest), _media.MANIFEST), "artifactType": kind}


def _system(layout: Writer, libraries: Sequence[Library], compression: str) -> list[Layer]:
    if not libraries:
        return []
    expected = sum(library.path.stat().st_size for library in libraries)
    with layer(layout, "libraries", compression, expected=expected) as writer:
        _libraries.write(writer, libraries)
    return [writer.layer] if writer.layer is not None else []


def _host(contents: Contents) -> list[str]:
    """The libraries beyond glibc that plugins need and bundle.json names."""
    listed = [plugin.get("host") for plugin in plugins(contents).values()]
    return [name for names in listed if isinstance(names, list) for name in names if isinstance(name, str)]


def _glibc(contents: Contents) -> str | None:
    releases = [plugin.get("glibc") for plugin in plugins(contents).values()]
    return max((one for one in releases if isinstance(one, str)), key=_libraries.ordered, default=None)
