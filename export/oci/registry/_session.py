"""Requests to registries: over TLS, authorized, redirected and tried again where that is right, errors in one line."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx2

import namedtensor
from namedtensor.export.oci.registry import _urls
from namedtensor.export.oci.registry._errors import Cancelled, RegistryError
from namedtensor.export.oci.registry._patience import TRANSIENT, Interruption, Patience, Waiter, retry_after
from namedtensor.export.oci.registry._reference import Reference
from namedtensor.export.oci.registry._tokens import Access, Keys

# OCI distribution-spec 1.1: registries should take manifests of 4 MB; none needs more than that to answer.
MAX_ANSWER = 4 << 20
_MAX_ERROR = 64 << 10
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A short answer that takes longer than this is not meant to arrive.
_ANSWER_S = 120.0
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without a connection, and without a byte moving, after which an attempt is given up."""

    connect: float = 15.0
    idle: float = 60.0


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries: `length` bytes, which `parts` yields from the start each time that it is called."""

    length: int
    parts: Callable[[], Iterable[bytes]]

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls(len(data), lambda: [data])


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole, short answer, and the address that gave it in the end."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str


class Session:
    """The connections and keys of one client. Safe to use from many threads."""

    def __init__(
        self,
        *,
        own: str | None = None,
        plain_http: bool = False,
        ca_file: Path | None = None,
        patience: Patience | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self.timeouts = timeouts or Timeouts()
        self.cancelled = threading.Event()
        self.plain_http = plain_http
        self._ca_file = ca_file
        self._schemes: dict[str, str] = {}
        self._reached: set[tuple[str, str, int]] = set()
        self._lock = threading.Lock()
        self.keys = Keys(self._token_request, own, plain_http=plain_http)
        self._http = httpx2.Client(
            verify=_authorities(ca_file),
            timeout=httpx2.Timeout(self.timeouts.idle, connect=self.timeouts.connect, pool=None),
            limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            headers={"User-Agent": f"namedtensor/{namedtensor.__version__}"},
            # A proxy has no way to this machine's own registry.
            mounts={f"all://{host}": None for host in ("localhost", "*.localhost", "127.0.0.1", "[::1]")},
            # Some registries take a client that keeps cookies for a browser, and ask it for more.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    def close(self) -> None:
        self._http.close()

    def waiter(self) -> Waiter:
        return self.patience.waiter(self.cancelled)

    def url(self, reference: Reference, path: str) -> str:
        """The address of `path` in the repository."""
        return f"{self._scheme(reference)}://{reference.host}/v2/{reference.repository}/{path}"

    def call(
        self,
        method: str,
        url: str,
        access: Access,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: Iterable[int] = (200,),
        retry: bool = True,
        idle_s: float | None = None,
    ) -> Answer:
        """One request with a short answer. Raises `RegistryError` for a status that is not in `accept`.

        What passes by itself is tried again, unless the caller, who knows what a second time would do, says not to:
        then it is raised as `Interruption`.
        """
        waiter = self.waiter()
        while True:
            try:
                with self.open(method, url, access, headers=headers, body=body, accept=accept, idle_s=idle_s) as found:
                    data = b"" if method == "HEAD" else _read(found, MAX_ANSWER)
                    return Answer(found.status_code, found.headers, data, str(found.url))
            except Interruption as error:
                if not retry:
                    raise
                waiter.wait(error)

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        access: Access,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: Iterable[int] = (200,),
        idle_s: float | None = None,
    ) -> Iterator[httpx2.Response]:
        """One request, its answer not yet read. Authorized and redirected, but not tried again.

        Raises `Interruption` where another attempt may help, also while the caller reads; `RegistryError` otherwise.
        """
        wanted = frozenset(accept)
        registry = _urls.origin(self.url(access.reference, ""))
        sent: str | None = None
        answered = False
        redirects = 0
        while True:
            self._check()
            # Credentials are for the registry alone: not for where it redirects, nor for another host's uploads.
            trusted = _urls.origin(url) == registry
            sent = self.keys.known(access) if trusted else None
            with self._send(
                method, url, {**(headers or {}), **({"Authorization": sent} if sent else {})}, body, idle_s
            ) as found:
                if found.status_code in wanted:
                    yield found
                    return
                if found.status_code == 401 and trusted:
                    if answered:
                        raise self.keys.refused(access)
                    self.keys.answer(access, url, ", ".join(found.headers.get_list("www-authenticate")), sent)
                    # A token may also have run out: that it was known does not make the next one its repetition.
                    answered = True
                elif found.status_code in _REDIRECTS and "location" in found.headers and redirects < _MAX_REDIRECTS:
                    redirects += 1
                    url = _urls.follow(found.headers["location"], url, plain_http=self.plain_http)
                else:
                    raise self._failure(found, access)

    @contextlib.contextmanager
    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, idle_s: float | None
    ) -> Iterator[httpx2.Response]:
        content: Any = None
        if body is not None:
            headers = {**headers, "Content-Length": str(body.length)}
            # Cancelled or not, a chunk that is under way may end: most registries forget an upload that is cut in one.
            content = body.parts()
        elif method in ("POST", "PUT", "PATCH"):
            headers = {**headers, "Content-Length": "0"}
        timeout = httpx2.Timeout(max(idle_s or 0.0, self.timeouts.idle), connect=self.timeouts.connect, pool=None)
        host = httpx2.URL(url).netloc.decode("ascii", "replace")
        try:
            request = self._http.build_request(method, url, headers=headers, content=content, timeout=timeout)
            found = self._http.send(request, stream=True)
            try:
                self._reached.add(_urls.origin(url))
                yield found
            finally:
                found.close()
        except httpx2.HTTPError as error:
            raise self._broken(error, host, _urls.origin(url)) from error
        except httpx2.InvalidURL:
            raise RegistryError("the registry names an address that is none") from None
        except RuntimeError as error:
            # What an exchange meets when `close` takes its connection away.
            if self.cancelled.is_set():
                raise Cancelled("cancelled") from error
            raise

    def _check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled("cancelled")

    def _scheme(self, reference: Reference) -> str:
        """https; http where it was asked for, or where a registry on this machine speaks it."""
        if self.plain_http:
            return "http"
        if not reference.is_loopback or self._ca_file is not None:
            return "https"
        with self._lock:
            if reference.host not in self._schemes:
                self._schemes[reference.host] = _loopback_scheme(reference.host, self.timeouts)
            return self._schemes[reference.host]

    def _token_request(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None
    ) -> tuple[int, bytes]:
        """One request of a token server, tried again as any other, its status for the caller to judge."""
        waiter = self.waiter()
        while True:
            try:
                with self._send(method, url, headers, None if content is None else Body.of(content), None) as found:
                    if found.status_code in TRANSIENT:
                        raise Interruption(
                            f"{httpx2.URL(url).host}: {_status(found)}", found.status_code, retry_after(found.headers)
                        )
                    return found.status_code, _read(found, MAX_ANSWER)
            except Interruption as error:
                waiter.wait(error)

    def _failure(self, found: httpx2.Response, access: Access) -> RegistryError:
        """What an answer with the wrong status means."""
        said = self.keys.scrub(_reason(found))
        host, status = access.reference.registry, found.status_code
        if status in TRANSIENT:
            return Interruption(f"{host}: {_status(found)}{said}", status, retry_after(found.headers))
        if status == 401:
            return RegistryError(
                f"{found.url.host}, to which {host} sends its clients, wants credentials of its own", status
            )
        if status == 403:
            verb = "write to" if access.push else "read"
            return RegistryError(f"{host}: no right to {verb} {access.reference.repository}{said}", status)
        if status == 404:
            return RegistryError(f"{host}: {access.reference.repository} is not there, or not to be seen{said}", status)
        if status in _REDIRECTS:
            return RegistryError(f"{host}: more than {_MAX_REDIRECTS} redirections", status)
        return RegistryError(f"{host}: {_status(found)}{said}", status)

    def _broken(self, error: httpx2.HTTPError, host: str, place: tuple[str, str, int]) -> RegistryError:
        """What an exchange that came to no end means."""
        if self.cancelled.is_set():
            return Cancelled("cancelled")
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, RegistryError):
                return cause
            if isinstance(cause, ssl.SSLCertVerificationError):
                why = cause.verify_message or "it cannot be verified"
                return RegistryError(
                    f"{host}: its TLS certificate is not trusted ({why}); --ca-file names an authority"
                )
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                why = (cause.reason or "handshake failed").replace("_", " ").lower()
                return RegistryError(f"{host}: no TLS ({why}); --plain-http talks to a registry without it")
            if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN and place not in self._reached:
                return RegistryError(f"there is no host {host}")
        if isinstance(error, httpx2.UnsupportedProtocol):
            return RegistryError(f"{host}: an address that is not HTTP")
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        if refused and place not in self._reached:
            # A wrong port more often than a registry that is about to start.
            return RegistryError(f"{host}: connection refused; no registry is there")
        if isinstance(error, httpx2.TimeoutException):
            return Interruption(f"{host}: nothing happened for too long ({_words(error)})")
        return Interruption(f"{host}: the connection broke ({_words(error)})")


def _authorities(ca_file: Path | None) -> ssl.SSLContext:
    """The system's authorities, and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise RegistryError(f"--ca-file {ca_file}: no certificates in PEM format") from None
    return context


def _loopback_scheme(host: str, timeouts: Timeouts) -> str:
    """What a registry on this machine speaks. One that speaks TLS answers plain HTTP with 400, an alert, or nothing."""
    try:
        found = httpx2.Client(trust_env=False, timeout=min(5.0, timeouts.connect)).get(f"http://{host}/v2/")
    except (httpx2.RemoteProtocolError, httpx2.ReadError):
        return "https"
    except httpx2.HTTPError:
        return "http"
    return "https" if found.status_code == 400 else "http"


def _read(found: httpx2.Response, limit: int) -> bytes:
    """The whole answer, if it is short and comes in time."""
    until = time.monotonic() + _ANSWER_S
    data = bytearray()
    for part in found.iter_bytes():
        data += part
        if len(data) > limit:
            raise RegistryError(f"{found.url.host}: an answer of more than {limit:,} bytes")
        if time.monotonic() > until:
            raise Interruption(f"{found.url.host}: an answer took more than {_ANSWER_S:.0f} s")
    return bytes(data)


def _reason(found: httpx2.Response) -> str:
    """What the answer says of its error, in the form of the distribution-spec ("Error Codes"), or nothing."""
    if found.request.method == "HEAD":
        return ""
    try:
        error = json.loads(_read(found, _MAX_ERROR))["errors"][0]
        words = [str(error[key]) for key in ("code", "message") if error.get(key)]
        if isinstance(error.get("detail"), str):
            words.append(error["detail"])
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
        RegistryError,
        httpx2.HTTPError,
    ):
        return ""
    return f" ({': '.join(words)})" if words else ""


def _status(found: httpx2.Response) -> str:
    return f"{found.status_code} {found.reason_phrase}".strip()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
