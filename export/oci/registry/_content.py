"""Descriptors and manifests: what an OCI registry or layout says of its content, checked before anything believes it.

OCI image-spec 1.1, "Content Descriptors", "Image Manifest", "Image Index"; Docker's image manifest V2, schema 2, which
says the same under other names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from namedtensor.checkpoint import _json
from namedtensor.export.oci import _media
from namedtensor.export.oci.registry._errors import refuse
from namedtensor.export.oci.registry._reference import is_digest

MANIFESTS = frozenset(_media.MANIFESTS)
INDEXES = frozenset(_media.INDEXES)

# OCI distribution-spec 1.1, "Pushing Manifests": registries should take 4 MB.
MAX_MANIFEST = 4 << 20
_MAX_CHILDREN = 4096
_MAX_SIZE = 1 << 50


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by its type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Mapping[str, Any] | None = field(default=None, hash=False)
    artifact_type: str | None = None

    @classmethod
    def read(cls, found: Any, where: str) -> Descriptor:
        """The descriptor in JSON. Raises `InputError` that names `where` if it is none."""
        if not isinstance(found, dict):
            refuse(f"{where}: a descriptor is not an object")
        media_type, digest, size = found.get("mediaType"), found.get("digest"), found.get("size")
        if not (isinstance(media_type, str) and 0 < len(media_type) < 256 and media_type.isascii()):
            refuse(f"{where}: a descriptor without a media type")
        if not isinstance(digest, str) or not is_digest(digest):
            refuse(f"{where}: a descriptor whose digest is not sha256: and 64 hexadecimal digits")
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            refuse(f"{where}: a descriptor whose size is no number of bytes")
        platform, kind = found.get("platform"), found.get("artifactType")
        return cls(
            media_type,
            digest,
            size,
            _annotations(found.get("annotations"), where),
            platform if isinstance(platform, dict) else None,
            kind if isinstance(kind, str) else None,
        )

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFESTS

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    def json(self) -> dict[str, Any]:
        """As it stands in an index."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.platform is not None:
            found["platform"] = dict(self.platform)
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest or index: its bytes, which have the descriptor's digest, and what they say."""

    descriptor: Descriptor
    data: bytes = field(repr=False)
    document: Mapping[str, Any] = field(repr=False, hash=False)
    # Of an image; an index has neither.
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    # Of an index.
    manifests: tuple[Descriptor, ...]
    # What this one is attached to: a signature, provenance or bill of materials refers to an image.
    subject: Descriptor | None

    @classmethod
    def read(cls, data: bytes, media_type: str, where: str, annotations: Mapping[str, str] | None = None) -> Manifest:
        """Raises `InputError` where it is not what `media_type` says, `CheckpointError` where it is no JSON."""
        if len(data) > MAX_MANIFEST:
            refuse(f"{where}: a manifest of {len(data):,} bytes, more than {MAX_MANIFEST:,}")
        document = _json.parse(data, where)
        if not isinstance(document, dict) or document.get("schemaVersion") != 2:
            refuse(f"{where}: not an image manifest of schema version 2")
        if document.get("mediaType", media_type) != media_type:
            refuse(f"{where}: called {media_type}, and calls itself something else")
        config: Descriptor | None = None
        subject: Descriptor | None = None
        layers: tuple[Descriptor, ...] = ()
        manifests: tuple[Descriptor, ...] = ()
        if media_type in MANIFESTS:
            if "manifests" in document:
                refuse(f"{where}: an image manifest that lists manifests")
            config = Descriptor.read(document.get("config"), where)
            layers = _descriptors(document.get("layers"), where)
        elif media_type in INDEXES:
            if "config" in document or "layers" in document:
                refuse(f"{where}: an index that has a configuration or layers")
            manifests = _descriptors(document.get("manifests"), where)
        else:
            refuse(f"{where}: {media_type} is neither an image manifest nor an index")
        if document.get("subject") is not None:
            subject = Descriptor.read(document["subject"], where)
        kind = document.get("artifactType")
        if kind is None and subject is not None and config is not None:
            # distribution-spec 1.1, "Listing Referrers".
            kind = config.media_type
        descriptor = Descriptor(
            media_type,
            digest_of(data),
            len(data),
            annotations or _annotations(document.get("annotations"), where),
            artifact_type=kind if isinstance(kind, str) else None,
        )
        return cls(descriptor, data, document, config, layers, manifests, subject)


def _descriptors(found: Any, where: str) -> tuple[Descriptor, ...]:
    if not isinstance(found, list) or len(found) > _MAX_CHILDREN:
        refuse(f"{where}: not a list of at most {_MAX_CHILDREN} descriptors")
    return tuple(Descriptor.read(one, where) for one in found)


def _annotations(found: Any, where: str) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        refuse(f"{where}: annotations that are not strings")
    return found
