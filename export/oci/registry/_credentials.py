"""Whose name and password a registry gets: from the environment, Docker's and Podman's files, credential helpers.

The files are those of docker-login(1) and containers-auth.json(5). Nothing here is ever printed: errors name the file
or the helper, and never quote what it says.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from namedtensor._errors import InputError
from namedtensor.export.oci.registry._errors import RegistryError
from namedtensor.export.oci.registry._reference import DOCKER_HUB, Reference, normal_registry
from namedtensor.zoo import ChoiceError

USERNAME = "NAMEDTENSOR_REGISTRY_USERNAME"
PASSWORD = "NAMEDTENSOR_REGISTRY_PASSWORD"
HOST = "NAMEDTENSOR_REGISTRY"

# What helpers and files call Docker Hub.
_HUB_KEY = "https://index.docker.io/v1/"
# A helper that answers this instead of a name has a token that buys others.
_TOKEN_USER = "<token>"
_HELPER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HELPER_TIMEOUT_S = 30
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name with its password, or an identity token. Neither the password nor the token is shown by `repr`."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be read in a message."""
        encoded = self.basic.removeprefix("Basic ") if self.password else ""
        return tuple(one for one in (self.password, self.identity_token, encoded) if one)


def find(
    reference: Reference, *, own: str | None = None, environ: Mapping[str, str] | None = None
) -> Credentials | None:
    """The credentials for the repository of `reference`, or None.

    Those of the environment are for the registry that `NAMEDTENSOR_REGISTRY` names, or else for `own`: the registry
    that this command writes to. No other ever sees them.
    """
    environ = os.environ if environ is None else environ
    from_environment = _environment(reference, own, environ)
    if from_environment is not None:
        return from_environment
    for path in _files(environ):
        config = _read(path)
        if config is not None:
            found = _lookup(reference, config, path)
            if found is not None:
                return found
    return None


def _environment(reference: Reference, own: str | None, environ: Mapping[str, str]) -> Credentials | None:
    username, password = environ.get(USERNAME), environ.get(PASSWORD)
    if not username and not password:
        return None
    if not (username and password):
        missing, there = (PASSWORD, USERNAME) if username else (USERNAME, PASSWORD)
        raise ChoiceError(f"{there} is set, but not {missing}")
    host = environ.get(HOST) or own
    return Credentials(username, password) if host and normal_registry(host) == reference.registry else None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The files to look into, in order. One that is asked for by name is the only one."""
    if environ.get("REGISTRY_AUTH_FILE"):
        path = Path(environ["REGISTRY_AUTH_FILE"]).expanduser()
        if not path.is_file():
            raise InputError(f"REGISTRY_AUTH_FILE: there is no file {path}")
        yield path
        return
    if environ.get("DOCKER_CONFIG"):
        yield Path(environ["DOCKER_CONFIG"]).expanduser() / "config.json"
        return
    home = Path(environ.get("HOME") or Path.home())
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield home / ".docker" / "config.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, RecursionError):
        # Neither the JSON error nor its cause may be shown: both quote the file.
        raise InputError(f"{path}: not a JSON object of credentials") from None
    return found


def _lookup(reference: Reference, config: dict[str, Any], path: Path) -> Credentials | None:
    """What one file has: a helper of the registry's own, an entry, or what the helper for all registries has."""
    helpers, auths, store = config.get("credHelpers"), config.get("auths"), config.get("credsStore")
    if isinstance(helpers, dict):
        for name in _server_names(reference.registry):
            if isinstance(helpers.get(name), str):
                return _ask(helpers[name], name)
    if isinstance(auths, dict):
        by_name = {_normal_key(key): value for key, value in auths.items() if isinstance(value, dict)}
        for name in _entry_names(reference):
            found = _entry(by_name.get(name, {}), path)
            if found is not None:
                return found
    if isinstance(store, str) and store:
        for name in _server_names(reference.registry):
            found = _ask(store, name)
            if found is not None:
                return found
    return None


def _server_names(registry: str) -> tuple[str, ...]:
    return (_HUB_KEY, DOCKER_HUB) if registry == DOCKER_HUB else (registry,)


def _entry_names(reference: Reference) -> Iterator[str]:
    """`host/team/digits`, `host/team`, `host`: the most particular entry wins."""
    name = f"{reference.registry}/{reference.repository}"
    while name:
        yield name
        name = name.rpartition("/")[0]


def _normal_key(key: str) -> str:
    """`https://host/v1/` is how old versions of Docker wrote `host`."""
    key = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        key = key.removesuffix(version)
    host, slash, rest = key.partition("/")
    return f"{normal_registry(host)}{slash}{rest}"


def _entry(entry: dict[str, Any], path: Path) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(_TOKEN_USER, identity_token=token)
    encoded = entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise InputError(f"{path}: an entry of auths does not hold a name and a password") from None
        return Credentials(username, password.rstrip("\0"))
    name, word = entry.get("username"), entry.get("password")
    if isinstance(name, str) and isinstance(word, str) and name:
        return Credentials(name, word)
    return None


def _ask(helper: str, server: str) -> Credentials | None:
    """What the program `docker-credential-HELPER` has for `server`, or None where it has nothing."""
    program = f"docker-credential-{helper}"
    if _HELPER.fullmatch(helper) is None:
        raise InputError("Docker's configuration names a credential helper that cannot be a program's name")
    found = shutil.which(program)
    if found is None:
        raise RegistryError(f"{program}, which Docker's configuration names for {server}, is not on PATH")
    try:
        done = subprocess.run(
            [found, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{program} did not answer within {_HELPER_TIMEOUT_S} s") from None
    except OSError as error:
        raise RegistryError(f"{program} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        # The one answer that means "nothing", the same in all helpers of Docker's.
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        raise RegistryError(f"{program} failed for {server} (exit code {done.returncode})")
    try:
        answer = json.loads(done.stdout[:_MAX_BYTES])
        username, secret = answer["Username"], answer["Secret"]
        if not (isinstance(username, str) and isinstance(secret, str)):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(f"{program} answered something else than credentials for {server}") from None
    if username == _TOKEN_USER:
        return Credentials(username, identity_token=secret)
    return Credentials(username, secret) if secret else None
