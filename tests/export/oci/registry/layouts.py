"""Small images to push."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from namedtensor.export.oci import Layout, _media
from namedtensor.export.oci._layout import Descriptor, Writer, encode, writing

GZIP = _media.LAYER + "+gzip"


def noise(seed: int, size: int) -> bytes:
    """Bytes that no compression makes fewer."""
    return random.Random(seed).randbytes(size)


def layer(writer: Writer, content: bytes) -> tuple[Descriptor, str]:
    """A layer with one file, and the digest of its tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("data")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    plain = file.getvalue()
    packed = gzip.compress(plain, compresslevel=1, mtime=0)
    return writer.add(packed, GZIP), f"sha256:{hashlib.sha256(plain).hexdigest()}"


def image(
    writer: Writer, contents: Sequence[bytes], *, architecture: str = "amd64", annotations: dict[str, str] | None = None
) -> Descriptor:
    layers = [layer(writer, content) for content in contents]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/data"]},
        "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "config": writer.add(encode(config), _media.CONFIG),
        "layers": [descriptor for descriptor, _ in layers],
    }
    if annotations:
        manifest["annotations"] = annotations
    found = writer.add(encode(manifest), _media.MANIFEST)
    return {**found, "platform": {"os": "linux", "architecture": architecture}}


def referrer(writer: Writer, subject: Descriptor, kind: str = _media.SPDX) -> Descriptor:
    """A document about `subject`."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "artifactType": kind,
        "config": writer.add(b"{}", _media.EMPTY),
        "layers": [writer.add(encode({"about": subject["digest"]}), kind)],
        "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        "annotations": {_media.CREATED: "2024-01-01T00:00:00Z"},
    }
    return {**writer.add(encode(manifest), _media.MANIFEST), "artifactType": kind}


def simple(path: Path, *contents: bytes, annotations: dict[str, str] | None = None) -> Layout:
    """A layout of one image."""
    with writing(path) as writer:
        writer.finish([image(writer, contents, annotations=annotations)])
    return Layout(path)


def index(path: Path, first: bytes, second: bytes) -> Layout:
    """A layout of one index of two images that share a layer, and a document about each of the three."""
    shared = noise(99, 5000)
    with writing(path) as writer:
        images = [
            image(writer, [shared, first]),
            image(writer, [shared, second], architecture="arm64"),
        ]
        document = {"schemaVersion": 2, "mediaType": _media.INDEX, "manifests": images}
        both = writer.add(encode(document), _media.INDEX)
        writer.finish([both, *(referrer(writer, one) for one in (*images, both))])
    return Layout(path)
