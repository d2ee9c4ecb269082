"""Names of images in registries, as people write them: `localhost:5000/team/digits:1.2`, `debian`, `host/x@DIGEST`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from namedtensor.zoo import ChoiceError

# Docker Hub goes by one name, is reached under another, and keeps its own images in `library/`.
DOCKER_HUB = "docker.io"
_HUB_ALIASES = {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}
_HUB_HOST = "registry-1.docker.io"

# OCI distribution-spec 1.1, "Pulling manifests".
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?"
)
_MAX_NAME = 255


def is_digest(text: object) -> bool:
    """Whether `text` is a SHA-256 digest as registries write it. Others are neither written nor read here."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_repository(name: str) -> bool:
    """Whether `name` can be a repository's."""
    return _REPOSITORY.fullmatch(name) is not None and len(name) <= _MAX_NAME


@dataclass(frozen=True, slots=True)
class Reference:
    """An image, or a repository, in a registry. At least one of `tag` and `digest` is given by `parse`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`; what is left out is as with Docker: docker.io, library/, latest.

        Raises `ChoiceError` where it is no such name.
        """
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            # What stands there might be a password: user:password@host. It is not repeated.
            raise ChoiceError(
                "an image's name has a digest (sha256: and 64 hexadecimal digits) after @, and no credentials; "
                "those come from Docker's configuration or the environment"
            )
        if "://" in rest:
            raise ChoiceError(f"{text!r}: an image's name has no scheme; write {rest.partition('://')[2]!r}")
        registry, rest = _split_registry(rest)
        repository, colon, tag = rest.partition(":")
        if colon and _TAG.fullmatch(tag) is None:
            raise ChoiceError(f"{text!r}: {tag!r} is no tag (letters, digits, '_', '.' and '-', at most 128)")
        if registry == DOCKER_HUB and repository and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, checked_repository(repository, text), tag or (None if at else "latest"), digest or None)

    @property
    def host(self) -> str:
        """Where the registry is reached, with its port if it has one."""
        return _HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def at(self, digest: str) -> Reference:
        """The same repository's `digest`."""
        return Reference(self.registry, self.repository, None, digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def checked_repository(name: str, text: str) -> str:
    """`name`, if it can be a repository's. Raises `ChoiceError` that quotes `text`."""
    if not name:
        raise ChoiceError(f"{text!r} names no repository; write REGISTRY/REPOSITORY:TAG")
    if not is_repository(name):
        hint = f"; did you mean {name.lower()!r}?" if is_repository(name.lower()) else ""
        raise ChoiceError(
            f"{text!r}: {name!r} is no repository's name (lower case letters and digits, "
            f"parted by '.', '_', '-' and '/'){hint}"
        )
    return name


def normal_registry(name: str) -> str:
    """A registry by the one name that it goes by here."""
    return DOCKER_HUB if name in _HUB_ALIASES else name


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, can only be this machine."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # As everywhere since Docker: only a name with a dot or a port is taken for a host.
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return DOCKER_HUB, text
    found = _HOST.fullmatch(first)
    if found is None or (found[1] is not None and not 0 < int(found[1]) < 65536):
        raise ChoiceError(f"{text!r}: {first!r} is no registry's host[:port]")
    return normal_registry(first), rest
