"""Pushes that are cut, killed or lost: they go on where the registry stands, and the tag never names half an image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from namedtensor.export.oci import Layout
from namedtensor.export.oci.registry import Client, Patience, Reference, RegistryError, push
from tests.export.oci.registry import layouts
from tests.export.oci.registry.layouts import noise
from tests.export.oci.registry.pushing import CHUNK, SHORT, again, big
from tests.export.oci.registry.scripted import (
    UPLOADS,
    Handler,
    Registry,
    Request,
    cut,
    error,
)


@pytest.mark.parametrize("remembered", ["kept", "forgotten"])
def test_a_cut_chunk_goes_on_where_the_registry_stands(
    registry: Registry, layout: Layout, reference: Reference, remembered: str
) -> None:
    registry.cut_chunks = remembered
    registry.fault("PATCH", UPLOADS, None, None, cut(after=10_000))
    done = again(registry, layout, reference)
    assert registry.image("team/digits", "1")
    ranges = [one.headers["content-range"] for one in registry.requests if one.method == "PATCH"]
    assert ranges[3].partition("-")[0] == str(2 * CHUNK + (10_000 if remembered == "kept" else 0))
    assert done.bytes < big(layout)["size"] + CHUNK + 5000


def test_an_upload_that_the_registry_forgot_begins_anew(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    def forget(handler: Handler, request: Request) -> bool:
        handler.registry.uploads.pop(request.path.rpartition("/")[2])
        return cut()(handler, request)

    registry.fault("PATCH", UPLOADS, None, None, forget)
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")


def test_an_upload_whose_last_answer_was_lost_is_not_repeated(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    def deaf(handler: Handler, request: Request) -> bool:
        request.body = handler.rfile.read(int(request.headers["content-length"]))
        name = request.path.rpartition("/")[2]
        data = bytes(handler.registry.uploads.pop(name) + request.body)
        handler.registry.blobs["team/digits", request.query["digest"]] = data
        return cut()(handler, request)

    registry.fault("PUT", UPLOADS, deaf, deaf, deaf)
    done = again(registry, layout, reference)
    assert registry.image("team/digits", "1")
    assert registry.count("PUT", UPLOADS) == 3
    assert done.bytes == sum(blob.descriptor.size for blob in done.blobs)


def test_a_digest_that_is_wrong_once_is_sent_once_more(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    registry.fault("PUT", UPLOADS, error(400, "DIGEST_INVALID", "no match"))
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")


def test_a_later_run_goes_on_where_an_earlier_one_broke_off(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    registry.fault("PATCH", UPLOADS, None, None, None, *[cut() for _ in range(3)])
    with pytest.raises(RegistryError):
        again(registry, layout, reference, parallel=1)
    done = again(registry, layout, reference)
    assert registry.image("team/digits", "1")
    ranges = [one.headers["content-range"] for one in registry.requests if one.method == "PATCH"]
    assert ranges[0].startswith(f"{3 * CHUNK}-")
    assert done.bytes < big(layout)["size"] - 3 * CHUNK + 5000


@pytest.mark.parametrize("spoil", ["forgotten", "garbage", "elsewhere", "corrupted"])
def test_a_note_that_is_not_true_any_more_is_thrown_away(
    registry: Registry, layout: Layout, reference: Reference, home: Path, spoil: str
) -> None:
    registry.fault("PATCH", UPLOADS, None, None, None, *[cut() for _ in range(3)])
    with pytest.raises(RegistryError):
        again(registry, layout, reference, parallel=1)
    (note,) = (home / "cache" / "uploads").glob("*.json")
    assert note.stat().st_mode & 0o777 == 0o600
    if spoil == "forgotten":
        registry.uploads.clear()
    elif spoil == "garbage":
        note.write_text('{"location": 3')
    elif spoil == "elsewhere":
        note.write_text(json.dumps({"location": "http://169.254.0.1/v2/x", "chunk": 1}))
    else:
        for upload in registry.uploads.values():
            upload[:1] = b"!"
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")
    assert not list((home / "cache" / "uploads").glob("*.json"))


def test_the_cache_need_not_be_there(
    registry: Registry, layout: Layout, reference: Reference, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(home / "file" / "cache"))
    registry.fault("PATCH", UPLOADS, None, cut(after=100))
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")


def test_wherever_a_push_breaks_off_the_tag_names_a_whole_image(
    registry: Registry, reference: Reference, tmp_path: Path
) -> None:
    old = layouts.simple(tmp_path / "old", b"what was there before")
    again(registry, old, reference)
    before = registry.image("team/digits", "1")
    layout = layouts.index(tmp_path / "layout", noise(5, 2 * CHUNK), b"second")
    broken = 0
    while True:
        registry.requests.clear()
        registry.lives = broken
        try:
            with Client(own=registry.host, patience=Patience(attempts=1), timeouts=SHORT) as client:
                push(layout, reference, client, chunk=CHUNK)
            break
        except RegistryError:
            assert registry.image("team/digits", "1") == before, f"after {broken} requests"
        broken += 1
    assert registry.image("team/digits", "1") == layout.manifest(layout.image())
    assert broken > 20
