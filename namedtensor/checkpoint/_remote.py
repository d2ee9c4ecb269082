"""Checkpoints in object stores and on web servers, through obstore: headers by ranged reads, weights into the cache."""

import ipaddress
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import GCSStore, HTTPStore, S3Store

from namedtensor.checkpoint import _cache
from namedtensor.checkpoint._blob import Blob, LocalFile
from namedtensor.checkpoint._origin import Origin
from namedtensor.checkpoint._reject import reject

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json")
# Enough for a hiccup. A server that is down should say so in seconds.
_RETRY: "RetryConfig" = {"max_retries": 3}


@dataclass(frozen=True, slots=True)
class RemoteFile(Blob):
    """An object as it was when opened. Reads ask for that version, where the store can tell versions apart."""

    store: "ObjectStore"
    path: str
    name: str
    address: str
    size: int
    etag: str | None
    version: str

    def read(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        options: dict[str, Any] = {"range": (offset, offset + length)}
        # A weak etag never matches, by definition.
        if self.etag and not self.etag.startswith("W/"):
            options["if_match"] = self.etag
        try:
            found = obstore.get(self.store, self.path, options=options)  # type: ignore[arg-type]
            data = bytes(found.bytes())
        except obstore.exceptions.PreconditionError:
            reject(self.name, "changed after its header was read", "open the checkpoint again")
        except Exception as error:
            reject(self.name, _reason(error))
        if len(data) != length or found.meta["size"] != self.size:
            reject(self.name, "changed after its header was read", "open the checkpoint again")
        return data

    @property
    def _place(self) -> Any:
        return _cache.place(self.address, self.version, self.size)

    def local(
        self, advance: Callable[[int], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> LocalFile:
        found = _cache.find(self._place, self.size)
        return found or _cache.download(self._place, self.name, self.size, self.read, advance, cancelled)

    @property
    def to_fetch(self) -> int:
        return 0 if _cache.find(self._place, self.size) else self.size


class Remote(Origin):
    """A prefix of an object store. With a `query`, which opens one `signed` file, no other file can be found."""

    def __init__(
        self, store: "ObjectStore", address: str, *, lists: bool, query: str = "", signed: str | None = None
    ) -> None:
        self.store = store
        self.address = address
        self.name = address
        self.lists = lists
        self.query = query
        self.signed = signed
        self.found: dict[str, Blob | None] = {}

    def _find(self, file: str) -> Blob | None:
        if file not in self.found:
            self.found[file] = self._look(file)
        return self.found[file]

    def _look(self, file: str) -> Blob | None:
        if self.query and file != self.signed:
            return None
        path = "" if self.query else file
        name = f"{self.address.rstrip('/')}/{file}"
        try:
            # A read rather than a HEAD: it shows that ranges are served, and a signed address allows nothing else.
            meta = obstore.get(self.store, path, options={"range": (0, 1)}).meta
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            try:
                meta = obstore.head(self.store, path)
            except FileNotFoundError:
                return None
            except Exception:
                reject(name, _reason(error), _advice(error))
            if meta["size"]:
                reject(name, _reason(error), "ranged reads are needed; does the server have them?")
        etag, modified = meta.get("e_tag"), meta["last_modified"]
        address = f"{name}?{self.query}" if self.query else name
        return RemoteFile(self.store, path, name, address, meta["size"], etag, etag or modified.isoformat())

    def list(self) -> list[str] | None:
        if not self.lists:
            return None
        try:
            objects = obstore.list_with_delimiter(self.store)["objects"]
        except Exception as error:
            reject(self.name, _reason(error), _advice(error))
        return sorted(PurePosixPath(item["path"]).name for item in objects)


def open_remote(address: str) -> tuple[Remote, str | None]:
    """The place and file that an `https://`, `s3://` or `gs://` address names; no file where it names a directory.

    Raises `CheckpointError` for an address that is not understood, or not safe: weights decide what a model says, so
    they do not travel without protection, except on this machine.
    """
    shown = address.partition("?")[0]
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        reject(shown, "is not an address", "it needs a host or bucket")
    if parts.query and parts.scheme not in ("http", "https"):
        reject(shown, f"has a query (?...), which {parts.scheme}:// does not know", "leave it out")
    if "@" in parts.netloc:
        reject(address.rpartition("@")[2], "refuses credentials in an address", "they would end up in logs")
    if parts.fragment:
        reject(shown, "has a fragment (#...), which servers never see", "write %23 for a '#' in a name")
    folder, _, last = parts.path.rpartition("/")
    is_file = last.endswith(_SUFFIXES) or bool(parts.query)
    if not is_file:
        folder = parts.path
    base = f"{parts.scheme}://{parts.netloc}{folder.rstrip('/')}/"
    try:
        if parts.scheme in ("http", "https"):
            if parts.scheme == "http" and not _is_loopback(host):
                reject(shown, "refuses to load weights over unprotected http", "use https://")
            store: ObjectStore = HTTPStore.from_url(
                f"{base}{last}?{parts.query}" if parts.query else base.rstrip("/"),
                client_options={"allow_http": parts.scheme == "http"},
                retry_config=_RETRY,
            )
            origin = Remote(store, base, lists=False, query=parts.query, signed=urllib.parse.unquote(last))
        else:
            kind = S3Store if parts.scheme == "s3" else GCSStore
            prefix = urllib.parse.unquote(folder).strip("/")
            store = kind(parts.netloc, prefix=prefix or None, retry_config=_RETRY)
            origin = Remote(store, base, lists=True)
    except obstore.exceptions.BaseError as error:
        reject(shown, _reason(error))
    return origin, urllib.parse.unquote(last) if is_file else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    """The first line of an error of obstore, without the dump of its source that follows, nor a signed address."""
    line = str(error).strip().partition("\n")[0].strip().rstrip(":")
    return re.sub(r"\?\S+", "", line) or type(error).__name__


def _advice(error: Exception) -> str | None:
    # Without credentials, obstore asks the metadata service of the cloud it might run in: an error about an address
    # that the reader never wrote.
    if "169.254.169.254" in str(error) or "metadata.google.internal" in str(error):
        return (
            "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "GOOGLE_SERVICE_ACCOUNT; for a public bucket AWS_SKIP_SIGNATURE=true or GOOGLE_SKIP_SIGNATURE=true"
        )
    return None
