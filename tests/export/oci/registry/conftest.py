"""Registries on loopback, clients without patience, an image to push, and nobody's credentials but the test's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from namedtensor.export.oci import Layout
from namedtensor.export.oci.registry import Client, Reference
from tests.export.oci.registry import layouts
from tests.export.oci.registry.pushing import BIG, HASTY, SHORT
from tests.export.oci.registry.scripted import Registry, serving


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


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An image with one layer of several chunks and one of less than a chunk."""
    return layouts.simple(tmp_path / "layout", BIG, layouts.noise(2, 1000))


@pytest.fixture
def reference(registry: Registry) -> Reference:
    """Where it is pushed to."""
    return Reference.parse(f"{registry.host}/team/digits:1")
