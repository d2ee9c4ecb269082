"""Reading from registries: manifests, blobs into the cache, referrers. Nothing is believed but by its digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from namedtensor.checkpoint import _cache
from namedtensor.export.oci import _media
from namedtensor.export.oci.registry._content import (
    INDEXES,
    MANIFESTS,
    Descriptor,
    Manifest,
    digest_of,
)
from namedtensor.export.oci.registry._errors import RegistryError, refuse
from namedtensor.export.oci.registry._patience import Interruption, Patience
from namedtensor.export.oci.registry._reference import Reference
from namedtensor.export.oci.registry._session import Session, Timeouts
from namedtensor.export.oci.registry._tokens import Access

_ACCEPT = ", ".join((*_media.INDEXES, *_media.MANIFESTS))
# An index of indexes is allowed; a chain of them is not meant to be followed to its end.
_MAX_DEPTH = 4


class Client:
    """A connection to any number of registries, with the credentials that the user has for each.

    own: the registry that is written to, which those credentials of the environment are for that name no other.
    plain_http: no TLS, with any registry. A registry on this machine needs no asking.
    ca_file: certificates to trust besides the system's, PEM.

    Errors are one line: `RegistryError` where a registry refuses or cannot be reached, `InputError` where what was
    asked for is not there or not what its digest says.
    """

    def __init__(
        self,
        *,
        own: str | None = None,
        plain_http: bool = False,
        ca_file: Path | None = None,
        patience: Patience | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.session = Session(own=own, plain_http=plain_http, ca_file=ca_file, patience=patience, timeouts=timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.session.close()

    def manifest(self, reference: Reference, *, platform: str | None = "linux/amd64") -> Manifest:
        """The manifest of an image; of an index that of `platform` (os/architecture[/variant]) in it.

        With `platform=None` what the reference names, which may be an index. Raises `InputError` where there is no such
        image, or none for the platform.
        """
        found = self._manifest(reference)
        for _ in range(_MAX_DEPTH):
            if platform is None or found.descriptor.media_type not in INDEXES:
                return found
            child = _for_platform(found, platform, reference)
            found = self._manifest(reference.at(child.digest), child)
        refuse(f"{reference}: indexes of indexes, more than {_MAX_DEPTH} deep")

    def blob(
        self, reference: Reference, descriptor: Descriptor, *, advance: Callable[[int], None] | None = None
    ) -> Path:
        """The file of a configuration or layer, in the cache. Fetched where it is not there; size and digest verified.

        `advance` is told bytes as they arrive; a negative number where some were lost and come again.
        """
        place = _cache.root() / "blobs" / "sha256" / descriptor.digest.removeprefix("sha256:")
        with contextlib.suppress(OSError):
            if place.stat().st_size == descriptor.size and _file_digest(place) == descriptor.digest:
                return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=place.parent)
        except OSError as error:
            raise RegistryError(f"the cache {place.parent} cannot be written: {error.strerror}") from error
        temporary = Path(name)
        try:
            try:
                self._fetch(reference, descriptor, handle, advance or (lambda count: None))
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        return place

    def referrers(self, reference: Reference) -> tuple[Descriptor, ...]:
        """What refers to the manifest with the digest of `reference`: signatures, provenance, bills of materials."""
        access, headers = Access(reference), {"Accept": _media.INDEX}
        digest = reference.digest or ""
        answer = self.session.call(
            "GET",
            self.session.url(reference, f"referrers/{digest}"),
            access,
            headers=headers,
            accept=(200, 400, 404, 405),
        )
        if answer.status != 200:
            # "Referrers Tag Schema": how registries without the API keep them.
            url = self.session.url(reference, f"manifests/{digest.replace(':', '-')}")
            answer = self.session.call("GET", url, access, headers=headers, accept=(200, 404))
        return Manifest.read(answer.data, _media.INDEX, str(reference)).manifests if answer.status == 200 else ()

    def exists(self, reference: Reference, access: Access | None = None) -> str | None:
        """The digest of what `reference` names, or None where there is nothing."""
        url = self.session.url(reference, f"manifests/{reference.digest or reference.tag}")
        answer = self.session.call(
            "HEAD", url, access or Access(reference), headers={"Accept": _ACCEPT}, accept=(200, 404)
        )
        if answer.status == 404:
            return None
        return reference.digest or answer.headers.get("docker-content-digest", "")

    def _manifest(self, reference: Reference, descriptor: Descriptor | None = None) -> Manifest:
        url = self.session.url(reference, f"manifests/{reference.digest or reference.tag}")
        try:
            answer = self.session.call("GET", url, Access(reference), headers={"Accept": _ACCEPT})
        except RegistryError as error:
            if error.status == 404:
                refuse(f"there is no image {reference}, or it is not to be seen")
            raise
        digest = digest_of(answer.data)
        if digest != (reference.digest or answer.headers.get("docker-content-digest", digest)):
            refuse(f"{reference}: the registry sent a manifest that does not have the digest")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        if media_type not in MANIFESTS | INDEXES:
            refuse(f"{reference}: {media_type or 'an answer without a type'} is no image manifest that is known here")
        if descriptor is not None and (descriptor.size, descriptor.media_type) != (len(answer.data), media_type):
            refuse(f"{reference}: not of the size and type that the index says")
        return Manifest.read(answer.data, media_type, str(reference))

    def _fetch(self, reference: Reference, descriptor: Descriptor, file: int, advance: Callable[[int], None]) -> None:
        """Write the blob to `file`, going on after a cut where the registry can."""
        url = self.session.url(reference, f"blobs/{descriptor.digest}")
        waiter = self.session.waiter()
        digest, done = hashlib.sha256(), 0
        while True:
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
            try:
                with self.session.open("GET", url, Access(reference), headers=headers, accept=(200, 206)) as found:
                    if found.status_code == 200 and done:
                        advance(-done)
                        digest, done = hashlib.sha256(), 0
                        os.ftruncate(file, 0)
                    for part in found.iter_raw():
                        if done + len(part) > descriptor.size:
                            refuse(f"{reference}: a blob of more bytes than the {descriptor.size:,} that are announced")
                        digest.update(part)
                        _write(file, part, done)
                        done += len(part)
                        advance(len(part))
                        waiter.progress()
                if done == descriptor.size:
                    break
                raise Interruption(f"{reference.registry}: a blob ended after {done:,} of {descriptor.size:,} bytes")
            except Interruption as error:
                waiter.wait(error)
            except RegistryError as error:
                if error.status == 404:
                    refuse(f"{reference}: its blob {descriptor.digest} is not there")
                raise
        if f"sha256:{digest.hexdigest()}" != descriptor.digest:
            refuse(f"{reference}: the registry sent a blob that does not have its digest, {descriptor.digest}")


def _for_platform(index: Manifest, platform: str, reference: Reference) -> Descriptor:
    offered = []
    for one in index.manifests:
        if one.platform is None:
            continue
        names = [one.platform.get(key) for key in ("os", "architecture", "variant")]
        name = "/".join(part for part in names if isinstance(part, str) and part)
        # amd64 is amd64 in any variant where none is asked for.
        if name == platform or name.startswith(platform + "/"):
            return one
        offered.append(name)
    refuse(f"{reference} is not there for {platform}", f"there is {', '.join(sorted(set(offered))) or 'no platform'}")


def _write(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, memoryview(data)[written:], offset + written)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
