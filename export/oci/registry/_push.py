"""An image's way into a registry: blobs first, manifests when all that they name is there, the tag when all is.

Whoever reads the tag meanwhile gets the image that was there before, whole. OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from namedtensor._errors import NamedTensorError
from namedtensor.export.oci import _media
from namedtensor.export.oci._layout import Layout, encode
from namedtensor.export.oci.registry import _notes, _whereabouts
from namedtensor.export.oci.registry._client import Client
from namedtensor.export.oci.registry._content import Descriptor, Manifest
from namedtensor.export.oci.registry._errors import RegistryError, refuse
from namedtensor.export.oci.registry._parallel import each
from namedtensor.export.oci.registry._reference import Reference
from namedtensor.export.oci.registry._session import Body
from namedtensor.export.oci.registry._tokens import Access
from namedtensor.export.oci.registry._upload import CHUNK, Sent, Source, upload
from namedtensor.zoo import ChoiceError

PARALLEL = 4
_MAX_DEPTH = 4
_MAX_MANIFESTS = 4096
# Layers that are, by their type, never handed out.
_ELSEWHERE = (".nondistributable.", ".foreign.")


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whom to tell how a push goes on, from any thread.

    planned: number of bytes of a blob, before it is looked for
    moved: bytes of it that went; negative where some have to go again
    settled: what became of it
    confirmed: digest and how many bytes of it the registry has for certain
    """

    planned: Callable[[int], None] = lambda size: None
    moved: Callable[[int], None] = lambda count: None
    settled: Callable[[Sent], None] = lambda sent: None
    confirmed: Callable[[str, int], None] = lambda digest, count: None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did. `manifests` and `referrers` are digests; those that the registry had are not sent again."""

    reference: Reference
    digest: str
    blobs: tuple[Sent, ...]
    manifests: tuple[str, ...]
    referrers: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes of blobs that went over the wire."""
        return sum(blob.bytes for blob in self.blobs)

    def count(self, outcome: str) -> int:
        return sum(blob.outcome == outcome for blob in self.blobs)


def push(
    layout: Layout,
    reference: Reference,
    client: Client,
    *,
    image: str | None = None,
    mount_from: Sequence[str] = (),
    parallel: int = PARALLEL,
    chunk: int = CHUNK,
    watcher: Watcher | None = None,
) -> Pushed:
    """Push an image, or an index with all its images, and what refers to them, and tag it as `reference` says.

    image: its name in the layout, where that holds several.
    mount_from: repositories of the same registry that may hold some of its blobs. The base image's, which an annotation
    names, and those that earlier pushes went to are tried by themselves.

    Raises `InputError` where the layout is damaged, `RegistryError` where the registry refuses. The tag is then what it
    was before.
    """
    if reference.tag is None and reference.digest is None:
        raise ChoiceError(f"{reference}: nothing to push to; write {reference}:TAG")
    watcher = watcher or Watcher()
    root = Descriptor.read(layout.image(image), str(layout.path))
    plan = _Plan.of(layout, root)
    if reference.digest is not None and reference.digest != root.digest:
        raise ChoiceError(f"{reference}: the image has another digest, {root.digest}")
    access = Access(reference, push=True)
    hints = [*mount_from, *plan.bases(reference)]
    seen = _whereabouts.recall(reference.registry)
    _notes.tidy()

    def send(blob: Descriptor) -> Sent:
        source = Source(blob, lambda: layout.stream(blob.digest))
        mounts = dict.fromkeys([*hints, *([seen[blob.digest]] if blob.digest in seen else [])])
        confirmed = watcher.confirmed
        sent = upload(
            client.session,
            access,
            source,
            mounts=list(mounts),
            chunk=chunk,
            moved=watcher.moved,
            confirmed=lambda count: confirmed(blob.digest, count),
        )
        watcher.settled(sent)
        return sent

    blobs = list(plan.blobs.values())
    for blob in blobs:
        watcher.planned(blob.size)
    sent = each(send, blobs, parallel, client.session.cancelled)
    manifests = _Manifests(client, access)
    for manifest in plan.images:
        manifests.put(manifest)
    for manifest in plan.referrers:
        manifests.refer(manifest)
    if reference.tag is not None:
        manifests.tag(plan.images[-1], reference.tag)
    _whereabouts.remember(reference, plan.blobs)
    return Pushed(
        reference,
        root.digest,
        tuple(sent),
        tuple(one.descriptor.digest for one in plan.images),
        tuple(one.descriptor.digest for one in plan.referrers),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that belongs to an image, each once: manifests after those that they list, the image's own the last."""

    blobs: dict[str, Descriptor]
    images: tuple[Manifest, ...]
    referrers: tuple[Manifest, ...]

    @classmethod
    def of(cls, layout: Layout, root: Descriptor) -> _Plan:
        images: dict[str, Manifest] = {}
        _collect(layout, root, images, _MAX_DEPTH)
        referrers: dict[str, Manifest] = {}
        found = True
        others = [Descriptor.read(one, str(layout.path)) for one in layout.manifests]
        others = [one for one in others if one.is_manifest or one.is_index]
        while found:
            # What refers to a referrer comes with it: a signature of a bill of materials.
            found = False
            for one in others:
                if one.digest in images or one.digest in referrers:
                    continue
                subject = _manifest(layout, one).subject
                if subject is not None and (subject.digest in images or subject.digest in referrers):
                    _collect(layout, one, referrers, _MAX_DEPTH)
                    found = True
        blobs = {}
        for manifest in (*images.values(), *referrers.values()):
            for blob in (*([manifest.config] if manifest.config else []), *manifest.layers):
                if not any(word in blob.media_type for word in _ELSEWHERE):
                    blobs[blob.digest] = blob
        return cls(blobs, tuple(images.values()), tuple(referrers.values()))

    def bases(self, reference: Reference) -> Iterator[str]:
        """Repositories of the same registry that the image's base is in, by its annotations."""
        names = {one.document.get("annotations", {}).get(_media.BASE_NAME) for one in self.images}
        for name in sorted(name for name in names if isinstance(name, str)):
            try:
                base = Reference.parse(name)
            except NamedTensorError:
                continue
            if base.registry == reference.registry:
                yield base.repository


def _collect(layout: Layout, descriptor: Descriptor, into: dict[str, Manifest], depth: int) -> None:
    """`descriptor` and what it lists, children first."""
    if descriptor.digest in into:
        return
    if not depth:
        refuse(f"{layout.path}: indexes of indexes, more than {_MAX_DEPTH} deep")
    manifest = _manifest(layout, descriptor)
    for child in manifest.manifests:
        _collect(layout, child, into, depth - 1)
    into[descriptor.digest] = manifest
    if len(into) > _MAX_MANIFESTS:
        refuse(f"{layout.path}: more than {_MAX_MANIFESTS:,} manifests")


def _manifest(layout: Layout, descriptor: Descriptor) -> Manifest:
    return Manifest.read(layout.read(descriptor.json()), descriptor.media_type, f"{layout.path}: {descriptor.digest}")


class _Manifests:
    """Manifests on their way into one repository."""

    def __init__(self, client: Client, access: Access) -> None:
        self._client = client
        self._session = client.session
        self._access = access
        self._reference = access.reference

    def put(self, manifest: Manifest) -> bool | None:
        """Put a manifest under its digest, if it is not there. Whether the registry itself lists it as a referrer.

        None where it was there already, when the registry does not say.
        """
        digest = manifest.descriptor.digest
        if self._client.exists(self._reference.at(digest), self._access):
            return None
        answer = self._put(manifest.data, manifest.descriptor.media_type, digest)
        return bool(answer.headers.get("oci-subject"))

    def tag(self, manifest: Manifest, tag: str) -> None:
        """Let the tag name a manifest that is there."""
        tagged = Reference(self._reference.registry, self._reference.repository, tag)
        # Registries whose tags never change refuse even the same again.
        if self._client.exists(tagged, self._access) != manifest.descriptor.digest:
            self._put(manifest.data, manifest.descriptor.media_type, tag)

    def refer(self, manifest: Manifest) -> None:
        """Put a manifest, and see to it that it is found from its subject."""
        listed = self.put(manifest)
        if manifest.subject is None:
            return
        if listed is None:
            listed = self._lists(manifest.subject.digest)
        if not listed:
            self._list(manifest, manifest.subject)

    def _lists(self, subject: str) -> bool:
        """Whether the registry has the referrers API."""
        url = self._session.url(self._reference, f"referrers/{subject}")
        return self._session.call("GET", url, self._access, accept=(200, 400, 404, 405)).status == 200

    def _list(self, manifest: Manifest, subject: Descriptor) -> None:
        """Enter a referrer in the index under the subject's own tag ("Referrers Tag Schema")."""
        tag = subject.digest.replace(":", "-")
        url = self._session.url(self._reference, f"manifests/{tag}")
        answer = self._session.call("GET", url, self._access, headers={"Accept": _media.INDEX}, accept=(200, 404))
        listed: list[dict[str, Any]] = []
        if answer.status == 200:
            index = Manifest.read(answer.data, _media.INDEX, f"{self._reference.repository}:{tag}")
            listed = [one.json() for one in index.manifests]
        if any(one["digest"] == manifest.descriptor.digest for one in listed):
            return
        document = {
            "schemaVersion": 2,
            "mediaType": _media.INDEX,
            "manifests": [*listed, manifest.descriptor.json()],
        }
        self._put(encode(document), _media.INDEX, tag)

    def _put(self, data: bytes, media_type: str, name: str) -> Any:
        url = self._session.url(self._reference, f"manifests/{name}")
        answer = self._session.call(
            "PUT", url, self._access, headers={"Content-Type": media_type}, body=Body.of(data), accept=(201,)
        )
        told = answer.headers.get("docker-content-digest")
        if told and name.startswith("sha256:") and told != name:
            raise RegistryError(
                f"{self._reference.registry}: it has stored a manifest under another digest than its own"
            )
        return answer
