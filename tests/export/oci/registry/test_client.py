"""Reading from a registry: what arrives is what its digest says, or nothing does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from namedtensor._errors import InputError
from namedtensor.export.oci import _media
from namedtensor.export.oci.registry import Client, Reference, RegistryError
from tests.export.oci.registry.scripted import Fault, Handler, Registry, Request, cut, digest_of, error, silent, status

LAYER = bytes(range(256)) * 4000


def put(registry: Registry, reference: str, media_type: str, document: Any) -> dict[str, Any]:
    """Put a manifest there; returns its descriptor."""
    data = json.dumps(document).encode()
    for key in (reference, digest_of(data)):
        registry.manifests["base", key] = (media_type, data)
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def blob(registry: Registry, data: bytes, media_type: str) -> dict[str, Any]:
    registry.blobs["base", digest_of(data)] = data
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def image(registry: Registry, tag: str = "1", layer: bytes = LAYER) -> dict[str, Any]:
    document = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "config": blob(registry, b"{}", _media.CONFIG),
        "layers": [blob(registry, layer, _media.LAYER)],
    }
    return put(registry, tag, _media.MANIFEST, document)


@pytest.fixture
def reference(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host}/base:1")


def test_an_image_is_read(client: Client, registry: Registry, reference: Reference) -> None:
    digest = image(registry)["digest"]
    manifest = client.manifest(reference)
    assert manifest.descriptor.digest == digest
    assert manifest.config is not None
    assert client.blob(reference, manifest.config).read_bytes() == b"{}"
    moved: list[int] = []
    path = client.blob(reference, manifest.layers[0], advance=moved.append)
    assert path.read_bytes() == LAYER
    assert sum(moved) == len(LAYER)


def test_a_blob_is_fetched_once(client: Client, registry: Registry, reference: Reference) -> None:
    image(registry)
    layer = client.manifest(reference).layers[0]
    assert client.blob(reference, layer) == client.blob(reference, layer)
    assert registry.count("GET", "/blobs/") == 1


def test_a_damaged_blob_in_the_cache_is_fetched_again(client: Client, registry: Registry, reference: Reference) -> None:
    image(registry)
    layer = client.manifest(reference).layers[0]
    client.blob(reference, layer).write_bytes(bytes(len(LAYER)))
    assert client.blob(reference, layer).read_bytes() == LAYER


def test_of_an_index_the_platform_is_taken(client: Client, registry: Registry, reference: Reference) -> None:
    one, other = image(registry, "one", b"one"), image(registry, "other", b"other")
    children = [
        {**other, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {**one, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    index = put(registry, "1", _media.INDEX, {"schemaVersion": 2, "mediaType": _media.INDEX, "manifests": children})
    assert client.manifest(reference).descriptor.digest == one["digest"]
    assert client.manifest(reference, platform="linux/arm64").descriptor.digest == other["digest"]
    assert client.manifest(reference, platform=None).descriptor.digest == index["digest"]
    with pytest.raises(InputError, match="not there for linux/s390x; there is linux/amd64, linux/arm64/v8"):
        client.manifest(reference, platform="linux/s390x")


def test_an_image_that_is_not_there_is_bad_input(client: Client, reference: Reference) -> None:
    with pytest.raises(InputError, match="there is no image"):
        client.manifest(reference)


def test_a_cut_download_goes_on_where_it_stopped(client: Client, registry: Registry, reference: Reference) -> None:
    image(registry)
    layer = client.manifest(reference).layers[0]

    def half(handler: Handler, request: Request) -> bool:
        handler.answer(200, LAYER[:500_000], Content_Length=str(len(LAYER)))
        return cut()(handler, request)

    registry.fault("GET", "/blobs/", half)
    assert client.blob(reference, layer).read_bytes() == LAYER
    first, second = (one.headers.get("range") for one in registry.requests if "/blobs/" in one.path)
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 500_000


@pytest.mark.parametrize(
    "fault", [status(503), status(500), cut(), silent(2), error(429, "TOOMANYREQUESTS", "slow down", Retry_After="0")]
)
def test_what_passes_by_itself_is_tried_again(
    client: Client, registry: Registry, reference: Reference, fault: Fault
) -> None:
    image(registry)
    registry.fault("GET", "/manifests/", fault)
    assert client.manifest(reference).layers


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda: status(503), r"503 Service Unavailable \(tried 3 times\)"),
        (lambda: cut(), r"the connection broke .*\(tried 3 times\)"),
        (lambda: silent(2), r"nothing happened for too long .*\(tried 3 times\)"),
        (lambda: error(403, "DENIED", "not yours"), r"no right to read base \(DENIED: not yours\)$"),
        (lambda: error(429, "TOOMANYREQUESTS", "quota", Retry_After="3600"), r"TOOMANYREQUESTS: quota\); .* 3600 s"),
        (lambda: status(302, Location="/v2/base/manifests/1"), "more than 5 redirections"),
        (lambda: status(418), "418 I'm a Teapot"),
    ],
)
def test_what_does_not_pass_is_one_line(
    client: Client, registry: Registry, reference: Reference, fault: Callable[[], Fault], says: str
) -> None:
    registry.fault("GET", "/manifests/", *[fault() for _ in range(9)])
    with pytest.raises(RegistryError, match=says) as found:
        client.manifest(reference)
    assert "\n" not in str(found.value)
    assert registry.host in str(found.value)


def test_retry_after_is_waited_for(
    client: Client, registry: Registry, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(registry)
    waits: list[float | None] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        return False

    monkeypatch.setattr(client.session.cancelled, "wait", wait)
    registry.fault("GET", "/manifests/", status(429, Retry_After="2"), status(503))
    client.manifest(reference)
    assert waits[0] == 2.0
    assert waits[1] is not None
    assert waits[1] <= 0.02


@pytest.mark.parametrize(
    ("layer", "says"),
    [(LAYER[:-1] + b"!", "does not have its digest"), (LAYER + b"!", "more bytes"), (LAYER[:-1], "ended after")],
)
def test_a_blob_that_is_not_what_it_is_called_is_refused(
    client: Client, registry: Registry, reference: Reference, layer: bytes, says: str
) -> None:
    image(registry)
    descriptor = client.manifest(reference).layers[0]
    registry.blobs["base", descriptor.digest] = layer
    with pytest.raises((InputError, RegistryError), match=says):
        client.blob(reference, descriptor)


def test_nothing_of_a_refused_blob_stays(client: Client, registry: Registry, reference: Reference, home: Any) -> None:
    test_a_blob_that_is_not_what_it_is_called_is_refused(client, registry, reference, LAYER + b"!", "more bytes")
    assert not [path for path in (home / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("media_type", "document", "says"),
    [
        ("text/html", {}, "text/html is no image manifest"),
        (_media.MANIFEST, [], "not an image manifest of schema version 2"),
        (_media.MANIFEST, {"schemaVersion": 1}, "schema version 2"),
        (_media.MANIFEST, {"schemaVersion": 2, "layers": []}, "descriptor"),
        (_media.MANIFEST, {"schemaVersion": 2, "mediaType": _media.INDEX}, "calls itself something else"),
        (_media.INDEX, {"schemaVersion": 2, "manifests": 3}, "not a list"),
        (_media.INDEX, {"schemaVersion": 2, "manifests": [], "layers": []}, "an index that has"),
        (
            _media.INDEX,
            {"schemaVersion": 2, "manifests": [{"mediaType": "a", "digest": "sha256:0", "size": 1}]},
            "digest",
        ),
        (
            _media.INDEX,
            {"schemaVersion": 2, "manifests": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": -1}]},
            "size",
        ),
    ],
)
def test_a_manifest_that_is_none_is_refused(
    client: Client, registry: Registry, reference: Reference, media_type: str, document: Any, says: str
) -> None:
    put(registry, "1", media_type, document)
    with pytest.raises(InputError, match=says):
        client.manifest(reference)


def test_a_manifest_with_another_digest_is_refused(client: Client, registry: Registry, reference: Reference) -> None:
    wanted = image(registry, "1", b"one")["digest"]
    registry.manifests["base", wanted] = registry.manifests["base", image(registry, "2", b"two")["digest"]]
    with pytest.raises(InputError, match="does not have the digest"):
        client.manifest(reference.at(wanted))


def test_an_endless_manifest_is_given_up(client: Client, registry: Registry, reference: Reference) -> None:
    registry.manifests["base", "1"] = (_media.MANIFEST, b" " * (5 << 20))
    with pytest.raises(RegistryError, match="an answer of more than"):
        client.manifest(reference)


def test_indexes_that_hold_each_other_end(client: Client, registry: Registry, reference: Reference) -> None:
    child = image(registry, "image")
    for _ in range(8):
        document = {"schemaVersion": 2, "manifests": [{**child, "platform": {"os": "linux", "architecture": "amd64"}}]}
        child = put(registry, "1", _media.INDEX, document)
    with pytest.raises(InputError, match="deep"):
        client.manifest(reference)


def test_no_registry_is_there(registry: Registry) -> None:
    with Client() as client:
        with pytest.raises(RegistryError, match="connection refused; no registry is there"):
            client.manifest(Reference.parse("127.0.0.1:1/base:1"))
        with pytest.raises(RegistryError, match="there is no host"):
            client.manifest(Reference.parse("nowhere.invalid/base:1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_registry_on_this_machine_is_reached_around_a_proxy(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    image(registry)
    with Client() as client:
        assert client.manifest(Reference.parse(f"{host}:{registry.host.partition(':')[2]}/base:1")).layers


def test_cookies_are_not_kept(client: Client, registry: Registry, reference: Reference) -> None:
    image(registry)
    registry.fault("GET", "/manifests/", status(503, Set_Cookie="sid=1; Path=/"))
    client.manifest(reference)
    assert not any("cookie" in one.headers for one in registry.requests)
