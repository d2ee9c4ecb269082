"""Pushing: what the registry has is not sent, what was cut goes on, and the tag never names half an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from namedtensor._errors import InputError
from namedtensor.export.oci import Layout, _media
from namedtensor.export.oci._layout import writing
from namedtensor.export.oci.registry import Client, Reference, RegistryError, Watcher
from namedtensor.zoo import ChoiceError
from tests.export.oci.registry import layouts
from tests.export.oci.registry.layouts import noise
from tests.export.oci.registry.pushing import BIG, CHUNK, HASTY, again, big
from tests.export.oci.registry.scripted import (
    UPLOADS,
    Fault,
    Registry,
    cut,
    digest_of,
    error,
    silent,
    status,
)


def test_an_image_is_pushed(registry: Registry, layout: Layout, reference: Reference) -> None:
    done = again(registry, layout, reference)
    assert registry.image("team/digits", "1") == layout.manifest(layout.image())
    assert done.digest == layout.image()["digest"]
    assert done.count("sent") == 3
    assert done.bytes == sum(blob.descriptor.size for blob in done.blobs) == registry.uploaded()


def test_a_large_blob_goes_in_chunks_and_a_small_one_at_once(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    again(registry, layout, reference)
    ranges = [one.headers["content-range"] for one in registry.requests if one.method == "PATCH"]
    assert ranges[:2] == [f"0-{CHUNK - 1}", f"{CHUNK}-{2 * CHUNK - 1}"]
    assert len(ranges) == 6
    assert registry.count("PUT", UPLOADS) == 3


def test_the_tag_comes_last(registry: Registry, layout: Layout, reference: Reference) -> None:
    again(registry, layout, reference)
    puts = [one.path.rpartition("/")[2] for one in registry.requests if one.method == "PUT"]
    assert puts[-2:] == [layout.image()["digest"], "1"]


def test_what_is_there_is_not_sent_again(registry: Registry, layout: Layout, reference: Reference) -> None:
    again(registry, layout, reference)
    done = again(registry, layout, reference)
    assert done.bytes == registry.uploaded() == 0
    assert done.count("present") == 3
    assert {one.method for one in registry.requests} == {"HEAD"} | (
        {"GET"} if registry.count("GET", "^/v2/$") else set()
    )


def test_only_what_changed_is_sent(registry: Registry, layout: Layout, reference: Reference, tmp_path: Path) -> None:
    again(registry, layout, reference)
    changed = layouts.simple(tmp_path / "changed", BIG, noise(3, 1000))
    done = again(registry, changed, Reference.parse(f"{registry.host}/team/digits:2"))
    assert (done.count("present"), done.count("sent")) == (1, 2)
    assert done.bytes < 2500


def forget(home: Path) -> None:
    """As if the pushes so far had been another user's."""
    shutil.rmtree(home / "cache")


def test_a_blob_of_another_repository_is_mounted(
    registry: Registry, layout: Layout, reference: Reference, home: Path
) -> None:
    again(registry, layout, reference)
    forget(home)
    done = again(registry, layout, Reference.parse(f"{registry.host}/other/digits:1"), mount_from=["team/digits"])
    assert done.count("mounted") == 3
    assert done.bytes == registry.uploaded() == 0
    assert registry.image("other/digits", "1")


def test_where_blobs_went_before_is_remembered(
    registry: Registry, layout: Layout, reference: Reference, home: Path
) -> None:
    again(registry, layout, reference)
    done = again(registry, layout, Reference.parse(f"{registry.host}/other/digits:1"))
    assert (done.count("mounted"), done.bytes) == (3, 0)
    # Nor is it more than a hint.
    registry.blobs.clear()
    again(registry, layout, Reference.parse(f"{registry.host}/third/digits:1"))
    assert registry.image("third/digits", "1")
    (remembered,) = (home / "cache" / "registries").iterdir()
    for nonsense in ("", "[]", '{"a": 3}', json.dumps({big(layout)["digest"]: "../.."}), "[" * 99_999):
        remembered.write_text(nonsense)
        registry.blobs.clear()
        registry.manifests.clear()
        again(registry, layout, reference)
        assert registry.image("team/digits", "1")


def test_the_base_of_an_image_is_where_blobs_are_mounted_from(
    registry: Registry, layout: Layout, reference: Reference, tmp_path: Path, home: Path
) -> None:
    again(registry, layout, reference)
    forget(home)
    on_top = layouts.simple(tmp_path / "top", BIG, noise(4, 500), annotations={_media.BASE_NAME: str(reference)})
    done = again(registry, on_top, Reference.parse(f"{registry.host}/other/top:1"))
    assert (done.count("mounted"), done.count("sent")) == (1, 2)


def test_a_registry_that_does_not_mount_is_sent_the_blob(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    again(registry, layout, reference)
    registry.mounts = False
    other = Reference.parse(f"{registry.host}/other/digits:1")
    done = again(registry, layout, other, mount_from=["nowhere", "team/digits"])
    assert done.count("sent") == 3
    assert not registry.uploads, "uploads that were begun and not used are given up"


@pytest.mark.parametrize("code", [400, 404, 405, 413, 415, 501])
def test_a_registry_without_chunks_gets_the_blob_at_once(
    registry: Registry, layout: Layout, reference: Reference, code: int
) -> None:
    registry.fault("PATCH", UPLOADS, *[status(code) for _ in range(9)])
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")
    assert registry.count("PATCH") == 1


def test_the_least_chunk_that_a_registry_takes_is_kept_to(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    registry.min_chunk = 3 * CHUNK
    again(registry, layout, reference)
    assert registry.count("PATCH") == 2
    assert registry.image("team/digits", "1")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503),
        cut(),
        cut(after=100),
        silent(1),
        error(429, "TOOMANYREQUESTS", "slow", Retry_After="0"),
    ],
    ids=["500", "503", "cut", "cut in the body", "silent", "429"],
)
def test_what_passes_by_itself_is_tried_again(
    registry: Registry, layout: Layout, reference: Reference, method: str, fault: Fault
) -> None:
    registry.fault(method, "", None, fault)
    again(registry, layout, reference)
    assert registry.image("team/digits", "1")


@pytest.mark.parametrize(
    ("method", "path", "fault", "says"),
    [
        (
            "POST",
            UPLOADS,
            lambda: error(403, "DENIED", "ask Ann"),
            r"no right to write to team/digits \(DENIED: ask Ann\)",
        ),
        ("POST", UPLOADS, lambda: error(404, "NAME_UNKNOWN", "create it first"), "not there.*create it first"),
        ("POST", UPLOADS, lambda: status(500), r"500 Internal Server Error \(tried 3 times\)"),
        ("POST", UPLOADS, lambda: status(202), "does not say where"),
        ("PATCH", UPLOADS, lambda: status(403), "no right to write"),
        ("PATCH", UPLOADS, lambda: cut(), r"the connection broke .*\(tried 3 times\)"),
        ("PATCH", UPLOADS, lambda: silent(2), r"nothing happened for too long .*\(tried 3 times\)"),
        ("PUT", UPLOADS, lambda: error(400, "DIGEST_INVALID", "no match"), "DIGEST_INVALID: no match"),
        ("PUT", UPLOADS, lambda: error(413, "SIZE_INVALID", "too big"), "SIZE_INVALID: too big"),
        ("PUT", "/manifests/", lambda: error(400, "MANIFEST_INVALID", "no"), "MANIFEST_INVALID: no"),
        ("PUT", "/manifests/1$", lambda: error(400, "TAG_INVALID", "immutable"), "TAG_INVALID: immutable"),
    ],
)
def test_what_does_not_pass_is_one_line_and_no_tag(
    registry: Registry,
    layout: Layout,
    reference: Reference,
    method: str,
    path: str,
    fault: Callable[[], Fault],
    says: str,
) -> None:
    registry.fault(method, path, *[fault() for _ in range(40)])
    with pytest.raises(RegistryError, match=says) as found:
        again(registry, layout, reference)
    assert "\n" not in str(found.value)
    assert ("team/digits", "1") not in registry.manifests


@pytest.mark.parametrize("digest", ["first", "second"])
@pytest.mark.parametrize("damage", ["changed", "short", "long", "gone"])
def test_a_damaged_layout_is_not_pushed(
    registry: Registry, layout: Layout, reference: Reference, digest: str, damage: str
) -> None:
    layers = layout.layers(layout.manifest(layout.image()))
    blob = layout.path / "blobs" / "sha256" / layers[digest == "second"]["digest"].removeprefix("sha256:")
    data = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes({"changed": b"!" + data[1:], "short": data[:-1], "long": data + b"!"}[damage])
    with pytest.raises(InputError, match=blob.name):
        again(registry, layout, reference)
    assert ("team/digits", layers[digest == "second"]["digest"]) not in registry.blobs
    assert not any(key[1] == "1" for key in registry.manifests)


def test_a_blob_that_only_the_registry_has_need_not_be_in_the_layout(
    registry: Registry, layout: Layout, reference: Reference
) -> None:
    again(registry, layout, reference)
    (layout.path / "blobs" / "sha256" / big(layout)["digest"].removeprefix("sha256:")).unlink()
    assert again(registry, layout, Reference.parse(f"{registry.host}/team/digits:2")).bytes == 0


def test_an_index_is_pushed_with_its_images_and_what_refers_to_them(
    registry: Registry, reference: Reference, tmp_path: Path
) -> None:
    layout = layouts.index(tmp_path / "layout", b"first", b"second")
    done = again(registry, layout, reference)
    assert len(registry.image("team/digits", "1")["manifests"]) == 2
    assert len(done.manifests) == 3
    assert len(done.referrers) == 3
    listed = registry.count("GET", "/referrers/")
    with Client(patience=HASTY) as client:
        found = client.referrers(reference.at(done.digest))
    assert [one.artifact_type for one in found] == [_media.SPDX]
    assert registry.count("GET", "/referrers/") == listed + 1


def test_a_registry_without_referrers_gets_them_under_the_tag_of_their_subject(
    registry: Registry, reference: Reference, tmp_path: Path
) -> None:
    registry.referrers_api = False
    layout = layouts.index(tmp_path / "layout", b"first", b"second")
    done = again(registry, layout, reference)
    for digest in done.manifests:
        media_type, data = registry.manifests["team/digits", digest.replace(":", "-")]
        (listed,) = json.loads(data)["manifests"]
        assert media_type == _media.INDEX
        assert listed["artifactType"] == _media.SPDX
        assert listed["annotations"] == {_media.CREATED: "2024-01-01T00:00:00Z"}
    with Client(patience=HASTY) as client:
        assert [one.digest for one in client.referrers(reference.at(done.digest))] == [listed["digest"]]
    puts = [one.path.rpartition("/")[2] for one in registry.requests if one.method == "PUT"]
    assert puts[-1] == "1"
    again(registry, layout, reference)
    assert registry.count("PUT") == 0, "they are listed already"


def test_a_layout_of_several_images_needs_a_name(registry: Registry, reference: Reference, tmp_path: Path) -> None:
    with writing(tmp_path / "layout") as writer:
        named = [
            {**layouts.image(writer, [name]), "annotations": {_media.REF_NAME: name.decode()}} for name in (b"a", b"b")
        ]
        writer.finish(named)
    layout = Layout(tmp_path / "layout")
    with pytest.raises(InputError, match="2 images"):
        again(registry, layout, reference)
    assert again(registry, layout, reference, image="b").digest == named[1]["digest"]


def test_a_packed_layout_is_pushed_as_well(registry: Registry, reference: Reference, tmp_path: Path) -> None:
    again(registry, layouts.simple(tmp_path / "layout.tar", BIG), reference)
    assert registry.image("team/digits", "1")


def test_a_push_to_a_digest_sets_no_tag(registry: Registry, layout: Layout) -> None:
    digest = layout.image()["digest"]
    again(registry, layout, Reference.parse(f"{registry.host}/team/digits@{digest}"))
    assert {key for _, key in registry.manifests} == {digest}
    with pytest.raises(ChoiceError, match="another digest"):
        again(registry, layout, Reference.parse(f"{registry.host}/team/digits@{digest_of(b'')}"))


def test_it_is_told_how_it_goes(registry: Registry, layout: Layout, reference: Reference) -> None:
    registry.fault("PATCH", UPLOADS, None, cut(after=5000))
    planned: list[int] = []
    moved: list[int] = []
    confirmed: list[int] = []
    watcher = Watcher(
        planned=planned.append, moved=moved.append, confirmed=lambda digest, count: confirmed.append(count)
    )
    again(registry, layout, reference, watcher=watcher)
    assert sum(moved) == sum(planned)
    assert confirmed == sorted(confirmed)
    assert confirmed[-1] == big(layout)["size"]
