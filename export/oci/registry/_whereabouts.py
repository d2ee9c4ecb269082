"""Which repository of a registry was last seen to have a blob, so that another one of it can mount it from there.

One file for each registry, in the cache. It is a hint: a registry that has forgotten the blob is simply sent it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from namedtensor.checkpoint import _cache
from namedtensor.export.oci.registry._reference import Reference, is_digest, is_repository

_MAX_BYTES = 4 << 20
# The latest, of the images of some hundred models.
_MAX_BLOBS = 4096


def _place(registry: str) -> Path:
    return _cache.root() / "registries" / f"{hashlib.sha256(registry.encode()).hexdigest()[:32]}.json"


def recall(registry: str) -> dict[str, str]:
    """Repositories by the digest of a blob that they had. Nothing where nothing, or nonsense, is remembered."""
    try:
        with _place(registry).open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: name for key, name in found.items() if is_digest(key) and isinstance(name, str) and is_repository(name)
    }


def remember(reference: Reference, digests: Iterable[str]) -> None:
    """The repository of `reference` has these blobs. What cannot be written is not remembered."""
    known = recall(reference.registry)
    for digest in digests:
        known.pop(digest, None)
        known[digest] = reference.repository
    latest = dict(list(known.items())[-_MAX_BLOBS:])
    path = _place(reference.registry)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(latest, file)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
