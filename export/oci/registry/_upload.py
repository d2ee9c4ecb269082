"""One blob's way into a registry: not at all where it is there already, mounted, in one piece, or in chunks.

OCI distribution-spec 1.1, "Pushing blobs". What is sent is held against the blob's digest before the registry is told
that it is all, so that a damaged file ends here, and a damaged transfer there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from namedtensor.export.oci.registry import _notes, _urls
from namedtensor.export.oci.registry._content import Descriptor
from namedtensor.export.oci.registry._errors import RegistryError, refuse
from namedtensor.export.oci.registry._patience import Interruption
from namedtensor.export.oci.registry._session import Answer, Body, Session
from namedtensor.export.oci.registry._tokens import Access

CHUNK = 16 << 20
_PART = 256 << 10
# A minimum that a registry asks for is honoured up to here.
_MAX_CHUNK = 1 << 30
# How registries say that they take no chunks.
_NO_CHUNKS = frozenset({400, 404, 405, 411, 413, 415, 501})
# What a registry may need to look through a blob before it confirms it.
_SLOWEST_CHECK = 10e6
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Source:
    """A blob and where its bytes are."""

    descriptor: Descriptor
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a blob: "present", "mounted" or "sent", and how many bytes went over the wire for it."""

    descriptor: Descriptor
    outcome: str
    bytes: int = 0


def upload(
    session: Session,
    access: Access,
    source: Source,
    *,
    mounts: Sequence[str] = (),
    chunk: int = CHUNK,
    moved: Callable[[int], None] | None = None,
    confirmed: Callable[[int], None] | None = None,
) -> Sent:
    """See to it that a blob is in the repository of `access`.

    mounts: repositories of the same registry that may have it.
    moved: told bytes as they go; negative where some have to go again.
    confirmed: told how many bytes the registry has, after each chunk, when the next run would go on from there.

    Raises `InputError` where the blob is not what its descriptor says, `RegistryError` where the registry refuses it.
    """
    digest = source.descriptor.digest
    if _present(session, access, digest):
        return Sent(source.descriptor, "present")
    with _notes.note(access.reference, digest) as note:
        transfer = _Transfer(session, access, source, note, chunk, moved or _ignore, confirmed or _ignore)
        noted = note.read()
        if not (noted and transfer.resume(*noted)) and _mount(session, access, digest, mounts, transfer):
            note.forget()
            return Sent(source.descriptor, "mounted")
        transfer.run()
        note.forget()
        return Sent(source.descriptor, "sent", transfer.bytes)


def _ignore(count: int) -> None:
    pass


def _present(session: Session, access: Access, digest: str) -> bool:
    url = session.url(access.reference, f"blobs/{digest}")
    return session.call("HEAD", url, access, accept=(200, 404)).status == 200


def _mount(session: Session, access: Access, digest: str, mounts: Sequence[str], transfer: _Transfer) -> bool:
    """Whether the registry could take the blob from one of `mounts`. An upload that it begins instead is used."""
    for name in mounts:
        if name == access.reference.repository:
            continue
        # The right to read the other repository is asked for only here: without it everything else still works.
        wider = Access(access.reference, push=access.push, mounts=(name,))
        query = {"mount": digest, "from": name}
        try:
            url = _urls.with_query(session.url(access.reference, "blobs/uploads/"), **query)
            answer = session.call("POST", url, wider, accept=(201, 202))
        except RegistryError as error:
            if error.status in (400, 401, 403, 404, 405):
                continue
            raise
        if answer.status == 201:
            return True
        transfer.begun(answer)
    return False


class _Lost(RegistryError):
    """The registry knows nothing of the upload any more."""


class _Transfer:
    """An upload under way."""

    def __init__(
        self,
        session: Session,
        access: Access,
        source: Source,
        note: _notes.Note,
        chunk: int,
        moved: Callable[[int], None],
        confirmed: Callable[[int], None],
    ) -> None:
        self.bytes = 0
        self._session = session
        self._access = access
        self._source = source
        self._note = note
        self._chunk = chunk
        self._moved = moved
        self._confirmed = confirmed
        self._size = source.descriptor.size
        self._chunked = self._size > chunk
        self._location: str | None = None
        # How many bytes the registry has, how many `moved` was told of.
        self._offset = 0
        self._shown = 0
        # The digest of the first `_hashed` bytes.
        self._hashed = 0
        self._hash = hashlib.sha256()
        self._corrupted = False

    def begun(self, answer: Answer) -> None:
        """Go on with the upload that the registry has begun."""
        if self._location is not None:
            self._abandon()
        location = answer.headers.get("location")
        if not location:
            raise RegistryError(f"{self._host}: it begins an upload and does not say where")
        self._location, self._offset = self._follow(location, answer.url), 0
        least = answer.headers.get("oci-chunk-min-length", "")
        if least.isdecimal() and len(least) < 12:
            self._chunk = max(self._chunk, min(int(least), _MAX_CHUNK))

    def resume(self, location: str, chunk: int) -> bool:
        """Whether the registry still has what an earlier run sent, which this one then goes on with."""
        try:
            self._chunk = max(self._chunk, min(chunk, _MAX_CHUNK))
            self._location = self._follow(location, self._session.url(self._access.reference, ""))
            known = self._ask()
        except RegistryError:
            known = False
        if not known:
            self._location = None
        return known

    def run(self) -> None:
        """Send what the registry does not have."""
        waiter = self._session.waiter()
        furthest = self._offset
        while True:
            try:
                if self._location is None:
                    self._begin()
                while self._chunked and self._offset < self._size:
                    self._patch()
                    furthest = max(furthest, self._offset)
                    waiter.progress()
                self._finish()
                return
            except Interruption as error:
                waiter.wait(error)
                if _present(self._session, self._access, self._digest):
                    # It was the last answer that got lost.
                    return
                if self._location is not None and not (self._chunked and self._ask()):
                    self._abandon()
                if self._offset > furthest:
                    # A part of a chunk is progress too.
                    furthest = self._offset
                    waiter.progress()
            except _Lost as error:
                waiter.wait(Interruption(error.headline, error.status))
                self._location = None

    @property
    def _digest(self) -> str:
        return self._source.descriptor.digest

    @property
    def _host(self) -> str:
        return self._access.reference.registry

    def _begin(self) -> None:
        url = self._session.url(self._access.reference, "blobs/uploads/")
        self.begun(self._session.call("POST", url, self._access, accept=(202,), retry=False))

    def _patch(self) -> None:
        """Send one chunk."""
        assert self._location is not None
        length = min(self._chunk, self._size - self._offset)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + length - 1}",
        }
        body = Body(length, lambda: self._parts(length))
        try:
            answer = self._session.call(
                "PATCH", self._location, self._access, headers=headers, body=body, accept=(202, 204), retry=False
            )
        except Interruption:
            raise
        except RegistryError as error:
            if error.status == 416 and self._elsewhere():
                return
            if error.status in _NO_CHUNKS and self._offset == 0:
                self._chunked = False
                self._abandon()
                self._begin()
                return
            if error.status in (404, 416):
                raise _Lost(f"{self._host}: it has lost an upload that was under way", error.status) from error
            raise
        has = _acknowledged(answer)
        if has is not None and not self._offset < has <= self._offset + length:
            raise _Lost(f"{self._host}: it has counted other bytes than were sent to it")
        self._location = self._follow(answer.headers.get("location") or self._location, answer.url)
        self._offset = self._offset + length if has is None else has
        self._note.write(self._location, self._chunk)
        self._confirmed(self._offset)

    def _finish(self) -> None:
        """Say that this is all, or send all at once. The registry compares digests."""
        assert self._location is not None
        length = 0 if self._chunked else self._size
        if self._chunked:
            self._check(self._hash_up_to(self._size))
        else:
            self._offset = 0
        headers = {"Content-Type": "application/octet-stream"}
        try:
            self._session.call(
                "PUT",
                _urls.with_query(self._location, digest=self._digest),
                self._access,
                headers=headers,
                body=Body(length, lambda: self._parts(length)),
                accept=(201, 204),
                retry=False,
                idle_s=self._session.timeouts.idle + self._size / _SLOWEST_CHECK,
            )
        except Interruption:
            raise
        except RegistryError as error:
            if error.status == 404:
                raise _Lost(f"{self._host}: it has lost an upload that was under way", 404) from error
            if error.status == 400 and not self._corrupted:
                # What left here had the digest. Once, that is a bad day on the way; the second time is refused.
                self._corrupted = True
                self._abandon()
                raise _Lost(error.headline, 400) from error
            raise

    def _ask(self) -> bool:
        """Ask how far the upload has come. False where the registry does not know it any more."""
        assert self._location is not None
        try:
            answer = self._session.call("GET", self._location, self._access, accept=(204, 200))
        except RegistryError as error:
            if error.status is None or error.status in (401, 403) or error.status >= 500:
                raise
            return False
        has = _acknowledged(answer)
        if has is None or has > self._size:
            return False
        self._location = self._follow(answer.headers.get("location") or self._location, answer.url)
        self._offset = has
        self._show(has)
        return True

    def _elsewhere(self) -> bool:
        """Whether the registry, which did not expect a chunk, says that it expects another."""
        before = self._offset
        return self._ask() and self._offset != before

    def _abandon(self) -> None:
        """Give the upload up; the registry may forget it."""
        if self._location is not None:
            try:
                self._session.call("DELETE", self._location, self._access, accept=(202, 204), retry=False)
            except RegistryError:
                # It forgets it in time by itself.
                if self._session.cancelled.is_set():
                    raise
        self._location, self._offset = None, 0
        self._show(0)

    def _follow(self, location: str, base: str) -> str:
        return _urls.follow(location, base, plain_http=self._session.plain_http)

    def _parts(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes. The last of the blob do not go before all of it has shown to have its digest."""
        at, end = self._offset, self._offset + length
        digest = self._hash_up_to(at).copy()
        with self._source.open() as stream:
            stream.seek(at)
            while at < end:
                part = stream.read(min(_PART, end - at))
                if not part:
                    self._damaged(f"ends after {at:,} of {self._size:,} bytes")
                digest.update(part)
                at += len(part)
                if at == self._size:
                    if stream.read(1):
                        self._damaged(f"has more than {self._size:,} bytes")
                    self._check(digest)
                yield part
                self.bytes += len(part)
                self._show(at)
        self._hash, self._hashed = digest, end

    def _hash_up_to(self, offset: int) -> hashlib._Hash:
        """The digest of the first `offset` bytes, read again where they were not sent by this run."""
        if self._hashed > offset:
            self._hash, self._hashed = hashlib.sha256(), 0
        if self._hashed < offset:
            with self._source.open() as stream:
                stream.seek(self._hashed)
                while self._hashed < offset:
                    part = stream.read(min(_PART, offset - self._hashed))
                    if not part:
                        self._damaged(f"ends after {self._hashed:,} of {self._size:,} bytes")
                    self._hash.update(part)
                    self._hashed += len(part)
        return self._hash

    def _check(self, digest: hashlib._Hash) -> None:
        if f"sha256:{digest.hexdigest()}" != self._digest:
            self._damaged("does not have its digest")

    def _damaged(self, how: str) -> NoReturn:
        refuse(f"the image is damaged: blob {self._digest} {how}", "build it again")

    def _show(self, position: int) -> None:
        self._moved(position - self._shown)
        self._shown = position


def _acknowledged(answer: Answer) -> int | None:
    """How many bytes a Range header says are there, or None where it does not.

    Registries write "0-0" for none; one byte alone is no chunk that anyone sends.
    """
    found = _RANGE.fullmatch(answer.headers.get("range", ""))
    if found is None:
        return None
    last = int(found[1])
    return last + 1 if last else 0
