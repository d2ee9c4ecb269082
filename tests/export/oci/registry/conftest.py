"""Registries on loopback, clients without patience, and nobody's credentials but the test's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from namedtensor.export.oci.registry import Client, Patience, Timeouts
from tests.export.oci.registry.scripted import Registry, serving

HASTY = Patience(attempts=3, first_s=0.01, longest_s=0.02, asked_s=2.0)
SHORT = Timeouts(connect=2.0, idle=0.5)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a cache, without anything in it."""
    directory = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(directory / "cache"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("", "_USERNAME", "_PASSWORD"):
        monkeypatch.delenv(f"NAMEDTENSOR_REGISTRY{name}", raising=False)
    return directory


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as found:
        yield found


@pytest.fixture
def client(registry: Registry) -> Iterator[Client]:
    with Client(own=registry.host, patience=HASTY, timeouts=SHORT) as found:
        yield found
