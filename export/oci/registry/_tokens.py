"""Answers to "401 Unauthorized": basic credentials, or a bearer token from the server that the registry names.

https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from namedtensor.export.oci.registry import _credentials, _urls
from namedtensor.export.oci.registry._credentials import Credentials
from namedtensor.export.oci.registry._errors import RegistryError
from namedtensor.export.oci.registry._reference import Reference

_CLIENT_ID = "namedtensor"
# Tokens that say nothing of it live for a minute.
_LIFETIME_S = 60.0
_MARGIN_S = 10.0
_PART = re.compile(r"""([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?""")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_MAX_HEADER = 16 << 10


@dataclass(frozen=True, slots=True)
class Access:
    """What a request is for: reading or writing a repository, and reading those that blobs are mounted from."""

    reference: Reference
    push: bool = False
    mounts: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        own = f"repository:{self.reference.repository}:{'pull,push' if self.push else 'pull'}"
        return (own, *(f"repository:{name}:pull" for name in self.mounts if name != self.reference.repository))


class Exchange(Protocol):
    """One request of a token server: status and body. Connection errors are raised, statuses are not."""

    def __call__(self, method: str, url: str, headers: dict[str, str], content: bytes | None) -> tuple[int, bytes]: ...


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Keys:
    """The authorization headers of one client: what was found, fetched and is still good."""

    def __init__(self, exchange: Exchange, own: str | None, *, plain_http: bool) -> None:
        self._exchange = exchange
        self._own = own
        self._plain_http = plain_http
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, tuple[str, ...]], _Token] = {}
        self._found: dict[tuple[str, str], Credentials | None] = {}
        self._secrets: set[str] = set()

    def known(self, access: Access) -> str | None:
        """The header to send without being asked, from an earlier answer."""
        token = self._tokens.get((access.reference.host, access.scopes))
        return token.header if token is not None and token.expires > time.monotonic() else None

    def answer(self, access: Access, url: str, challenge: str, sent: str | None) -> str:
        """The header that answers `challenge`, which came for a request to `url` with the header `sent`.

        Raises `RegistryError` where there is none, or where what was just fetched is not good enough.
        """
        with self._lock:
            known = self.known(access)
            if known is not None and known != sent:
                # Another thread has fetched it meanwhile.
                return known
            offered = _challenges(challenge[:_MAX_HEADER])
            credentials = self._credentials(access.reference)
            if "bearer" in offered:
                token = self._fetch(access, url, offered["bearer"], credentials)
            elif "basic" in offered:
                if credentials is None or not credentials.password:
                    raise RegistryError(_needs(access.reference), 401)
                if sent == credentials.basic:
                    raise RegistryError(_refused(access.reference, credentials), 401)
                token = _Token(credentials.basic, float("inf"))
            else:
                names = ", ".join(sorted(offered)) or "nothing"
                raise RegistryError(f"{access.reference.registry} asks for {names}, and not for basic or bearer", 401)
            if token.header == sent:
                raise RegistryError(_refused(access.reference, credentials), 401)
            self._tokens[access.reference.host, access.scopes] = token
            self._secrets.add(token.header.partition(" ")[2])
            return token.header

    def refused(self, access: Access) -> RegistryError:
        """The error for a fresh header that was refused."""
        credentials = self._credentials(access.reference)
        text = _needs(access.reference) if credentials is None else _refused(access.reference, credentials)
        return RegistryError(text, 401)

    def scrub(self, text: str) -> str:
        """`text`, which a server wrote, without any secret that it may have been told."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _credentials(self, reference: Reference) -> Credentials | None:
        key = (reference.registry, reference.repository)
        if key not in self._found:
            found = _credentials.find(reference, own=self._own)
            self._found[key] = found
            if found is not None:
                self._secrets.update(found.secrets)
        return self._found[key]

    def _fetch(self, access: Access, url: str, asked: dict[str, str], credentials: Credentials | None) -> _Token:
        """A token for `access`, from the server that the challenge names as its realm."""
        registry = access.reference.registry
        if not asked.get("realm"):
            raise RegistryError(f"{registry} asks for a token, and does not say where there are any", 401)
        realm = _urls.follow(asked["realm"], url, plain_http=self._plain_http)
        service = {"service": asked["service"]} if asked.get("service") else {}
        scopes = list(dict.fromkeys([*access.scopes, *asked.get("scope", "").split()]))
        if credentials is not None and credentials.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
            status, data = self._post(realm, {**grant, **service, "scope": " ".join(scopes)})
        else:
            query = urlencode([*service.items(), *(("scope", one) for one in scopes)])
            headers = {"Authorization": credentials.basic} if credentials is not None else {}
            status, data = self._exchange("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers, None)
            if status in (404, 405) and credentials is not None:
                grant = {"grant_type": "password", "username": credentials.username, "password": credentials.password}
                status, data = self._post(realm, {**grant, **service, "scope": " ".join(scopes)})
        if status in (400, 401, 403):
            text = _needs(access.reference) if credentials is None else _refused(access.reference, credentials)
            raise RegistryError(text, 401)
        if status != 200:
            raise RegistryError(f"the token server of {registry} answers {status}", status)
        return _token(data, registry)

    def _post(self, realm: str, form: dict[str, str]) -> tuple[int, bytes]:
        content = urlencode({**form, "client_id": _CLIENT_ID}).encode()
        return self._exchange("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, content)


def _token(data: bytes, registry: str) -> _Token:
    try:
        found: Any = json.loads(data)
        value = found.get("token") or found.get("access_token")
        lifetime = found.get("expires_in") or _LIFETIME_S
        if _TOKEN.fullmatch(value) is None or not 0 < lifetime < 1e9:
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        # The cause would quote the token.
        raise RegistryError(f"the token server of {registry} answers something else than a token") from None
    margin = min(_MARGIN_S, lifetime / 2)
    return _Token(f"Bearer {value}", time.monotonic() + lifetime - margin)


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """The schemes of a WWW-Authenticate header, in lower case, with the parameters of each (RFC 9110, 11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for match in _PART.finditer(header):
        name, quoted, plain = match.groups()
        if quoted is None and plain is None:
            current = found.setdefault(name.lower(), {})
        elif current is not None:
            current.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted or ""))
    return found


def _needs(reference: Reference) -> str:
    return (
        f"{reference.registry} needs credentials for {reference.repository}, and there are none; "
        f"`docker login {reference.registry}` stores them, or set {_credentials.USERNAME} and {_credentials.PASSWORD}"
    )


def _refused(reference: Reference, credentials: Credentials | None) -> str:
    if credentials is None:
        return _needs(reference)
    # Not even the name: some registries take a token for one.
    what = "the stored token" if credentials.identity_token else "the credentials"
    return f"{reference.registry} refuses {what} for {reference.repository}: wrong, expired, or without the right to it"
