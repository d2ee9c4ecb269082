"""Which addresses a registry may send its client to, and which of them may see credentials."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from namedtensor.export.oci.registry._errors import RegistryError
from namedtensor.export.oci.registry._reference import is_loopback

_PORTS = {"http": 80, "https": 443}
# RFC 3986 has no other characters. Of others, two parsers may make two different hosts.
_ADDRESS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what has to be the same for credentials to be sent."""
    parts = _split(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def follow(location: str, base: str, *, plain_http: bool = False) -> str:
    """Where `location`, which the answer to a request for `base` names, leads.

    A registry behind a proxy that speaks TLS for it may write http: into addresses of its own, which are taken for
    what they mean. Another host is reached by TLS, unless `plain_http` was asked for, and this machine only from a
    registry on this machine. Raises `RegistryError` otherwise.
    """
    parts, here = _split(location, base), _split(base)
    if (parts.scheme, here.scheme) == ("http", "https") and parts.hostname == here.hostname:
        parts = parts._replace(scheme="https", netloc=here.netloc)
    host, own = parts.hostname or "", here.hostname or ""
    if is_loopback(_bracketed(host)) and not is_loopback(_bracketed(own)):
        raise RegistryError(f"{own} sends its clients to {host}, which is their own machine; that is not followed")
    if parts.scheme == "http" and not plain_http and not is_loopback(_bracketed(host)):
        raise RegistryError(f"{own} sends its clients to {host} without TLS; that is not followed without --plain-http")
    return parts.geturl()


def with_query(url: str, **parameters: str) -> str:
    """`url`, which may have a query already, with more parameters."""
    more = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"{url}{'&' if '?' in url else '?'}{more}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _split(url: str, base: str | None = None) -> SplitResult:
    if _ADDRESS.fullmatch(url) is None:
        raise RegistryError("the registry names an address that is none")
    try:
        parts = urlsplit(url if base is None else urljoin(base, url))
        parts.port  # noqa: B018 (raises where it is no number)
    except ValueError:
        raise RegistryError("the registry names an address that is none") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        # What it is made of may be a password or a signature.
        raise RegistryError("the registry names an address that is not http(s)://HOST/PATH")
    return parts._replace(fragment="")
