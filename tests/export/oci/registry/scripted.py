"""A registry in this process: it keeps to OCI distribution-spec 1.1, but for what a test tells it to do wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from namedtensor.export.oci import _media

UPLOADS = "/blobs/uploads/"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Request:
    """What the registry was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def is_upload(self) -> bool:
        return UPLOADS in self.path


type Fault = Callable[["Handler", Request], bool]


@dataclass
class Registry:
    """`host` is where it listens; what it holds and was asked lies open."""

    host: str = ""
    scheme: str = "http"
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    # Rights that a request must show: the value of its Authorization header, or what answers with 401.
    authorize: Callable[[Request], dict[str, str] | None] = lambda request: None
    referrers_api: bool = True
    mounts: bool = True
    # What becomes of the bytes of a chunk that was cut: "kept", as the specification has it, or "forgotten".
    cut_chunks: str = "kept"
    min_chunk: int | None = None
    # After so many requests the registry is gone.
    lives: int | None = None
    _faults: list[tuple[str, re.Pattern[str], list[Fault | None]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fault(self, method: str, path: str, *faults: Fault | None) -> None:
        """What to do at the next requests of `method` whose path matches, one after the other; None is right."""
        self._faults.append((method, re.compile(path), list(faults)))

    def next_fault(self, request: Request) -> Fault | None:
        with self.lock:
            for method, path, faults in self._faults:
                if method == request.method and path.search(request.path) and faults:
                    return faults.pop(0)
        return None

    def count(self, method: str, path: str = "") -> int:
        return sum(one.method == method and re.search(path, one.path) is not None for one in self.requests)

    def uploaded(self) -> int:
        """Bytes of blobs that arrived."""
        return sum(len(one.body) for one in self.requests if one.is_upload)

    def image(self, repository: str, tag: str) -> dict[str, Any]:
        """The manifest under a tag, which must be whole: everything it names is there."""
        return self._whole(repository, tag)

    def _whole(self, repository: str, reference: str) -> dict[str, Any]:
        _, data = self.manifests[repository, reference]
        document: dict[str, Any] = json.loads(data)
        for one in document.get("manifests", []):
            self._whole(repository, one["digest"])
        for one in [*([document["config"]] if "config" in document else []), *document.get("layers", [])]:
            assert digest_of(self.blobs[repository, one["digest"]]) == one["digest"]
        return document


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with `code`."""

    def act(handler: Handler, request: Request) -> bool:
        handler.answer(code, body, **headers)
        return True

    return act


def error(code: int, name: str, message: str, **headers: str) -> Fault:
    """Answer with `code` and an error as the specification writes it."""
    return status(code, json.dumps({"errors": [{"code": name, "message": message}]}).encode(), **headers)


def cut(after: int = 0) -> Fault:
    """Take `after` bytes of the body, then close the connection without a word."""

    def act(handler: Handler, request: Request) -> bool:
        request.body = handler.rfile.read(after)
        upload = handler.registry.uploads.get(request.path.rpartition("/")[2])
        if upload is not None and handler.registry.cut_chunks == "kept":
            upload += request.body
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return act


def silent(seconds: float) -> Fault:
    """Say nothing for a while, then close the connection."""

    def act(handler: Handler, request: Request) -> bool:
        handler.server.stopped.wait(seconds)  # type: ignore[attr-defined]
        return cut()(handler, request)

    return act


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def log_message(self, format: str, *values: Any) -> None:
        pass

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def dispatch(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(self.command, parts.path, query, {k.lower(): v for k, v in self.headers.items()})
        with self.registry.lock:
            self.registry.requests.append(request)
        if self.registry.lives is not None and len(self.registry.requests) > self.registry.lives:
            cut()(self, request)
            return
        length = int(self.headers.get("Content-Length") or 0)
        challenge = self.registry.authorize(request)
        fault = None if challenge is not None else self.registry.next_fault(request)
        if fault is not None and fault(self, request):
            if length > len(request.body):
                self.close_connection = True
            return
        request.body = self.rfile.read(length)
        if challenge is not None:
            self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', **challenge)
            return
        with self.registry.lock:
            self._serve(request)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch

    def _serve(self, request: Request) -> None:
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests|referrers)/([^/]*)", request.path)
        if request.path == "/v2/":
            self.answer(200, b"{}")
        elif found is None:
            self._error(404, "NAME_UNKNOWN")
        else:
            repository, kind, name = found.groups()
            {
                "blobs/uploads": self._upload,
                "blobs": self._blob,
                "manifests": self._manifest,
                "referrers": self._referrers,
            }[kind](request, repository, name)

    def _error(self, code: int, name: str, **headers: str) -> None:
        self.answer(code, json.dumps({"errors": [{"code": name, "message": name.lower()}]}).encode(), **headers)

    def _upload(self, request: Request, repository: str, name: str) -> None:
        registry = self.registry
        if request.method == "POST":
            key = (request.query.get("from", ""), request.query.get("mount", ""))
            if registry.mounts and key in registry.blobs:
                registry.blobs[repository, key[1]] = registry.blobs[key]
                self.answer(201, Location=f"/v2/{repository}/blobs/{key[1]}", Docker_Content_Digest=key[1])
                return
            name = uuid.uuid4().hex
            registry.uploads[name] = bytearray()
            more = {"OCI_Chunk_Min_Length": str(registry.min_chunk)} if registry.min_chunk else {}
            self.answer(202, b"", Location=f"/v2/{repository}{UPLOADS}{name}?_state=0", Range="0-0", **more)
            return
        upload = registry.uploads.get(name)
        if upload is None:
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif request.method == "GET":
            self.answer(204, b"", **self._state(repository, name))
        elif request.method == "DELETE":
            del registry.uploads[name]
            self.answer(204)
        elif request.method == "PATCH":
            first, _, last = request.headers["content-range"].partition("-")
            if int(first) != len(upload) or int(last) - int(first) + 1 != len(request.body):
                self._error(416, "BLOB_UPLOAD_INVALID", **self._state(repository, name))
                return
            upload += request.body
            self.answer(202, b"", **self._state(repository, name))
        elif request.method == "PUT":
            data = bytes(upload + request.body)
            if digest_of(data) != request.query["digest"]:
                self._error(400, "DIGEST_INVALID")
                return
            del registry.uploads[name]
            registry.blobs[repository, request.query["digest"]] = data
            self.answer(201, Location=f"/v2/{repository}/blobs/{request.query['digest']}")

    def _state(self, repository: str, name: str) -> dict[str, str]:
        size = len(self.registry.uploads[name])
        return {"Location": f"/v2/{repository}{UPLOADS}{name}?_state={size}", "Range": f"0-{max(0, size - 1)}"}

    def _blob(self, request: Request, repository: str, name: str) -> None:
        data = self.registry.blobs.get((repository, name))
        if data is None:
            self._error(404, "BLOB_UNKNOWN")
            return
        start = int(re.sub(r"\D", "", request.headers.get("range", "0")))
        self.answer(206 if start else 200, data[start:], Docker_Content_Digest=name)

    def _manifest(self, request: Request, repository: str, name: str) -> None:
        registry = self.registry
        if request.method != "PUT":
            found = registry.manifests.get((repository, name))
            if found is None:
                self._error(404, "MANIFEST_UNKNOWN")
            else:
                self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1]))
            return
        document = json.loads(request.body)
        needed = [document["config"]["digest"]] if "config" in document else []
        needed += [one["digest"] for one in document.get("layers", [])]
        children = [one["digest"] for one in document.get("manifests", [])]
        if any((repository, one) not in registry.blobs for one in needed) or any(
            (repository, one) not in registry.manifests for one in children
        ):
            self._error(400, "MANIFEST_BLOB_UNKNOWN")
            return
        digest = digest_of(request.body)
        for key in {name, digest}:
            registry.manifests[repository, key] = (request.headers["content-type"], request.body)
        subject = document.get("subject", {}).get("digest")
        more = {"OCI_Subject": subject} if subject and registry.referrers_api else {}
        self.answer(201, b"", Location=request.path, Docker_Content_Digest=digest, **more)

    def _referrers(self, request: Request, repository: str, name: str) -> None:
        if not self.registry.referrers_api:
            self._error(404, "UNSUPPORTED")
            return
        listed = []
        for (place, key), (media_type, data) in self.registry.manifests.items():
            if place == repository and key.startswith("sha256:"):
                document = json.loads(data)
                if document.get("subject", {}).get("digest") == name:
                    kind = document["artifactType"]
                    listed.append({"mediaType": media_type, "digest": key, "size": len(data), "artifactType": kind})
        index = {"schemaVersion": 2, "mediaType": _media.INDEX, "manifests": listed}
        self.answer(200, json.dumps(index).encode(), Content_Type=_media.INDEX)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stopped: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the client gave up is no event."""


@contextlib.contextmanager
def serving(registry: Registry, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """Let `registry` listen on loopback while the block runs."""
    handler = type("Bound", (Handler,), {"registry": registry})
    server = _Server(("127.0.0.1", 0), handler)
    server.stopped = threading.Event()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        registry.scheme = "https"
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
