"""Whatever a registry or a configuration file says: it is understood, or refused in one line."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from namedtensor._errors import NamedTensorError
from namedtensor.export.oci import _media
from namedtensor.export.oci.registry import Manifest, Reference, _credentials
from namedtensor.export.oci.registry._content import Descriptor
from namedtensor.export.oci.registry._notes import note
from namedtensor.export.oci.registry._tokens import _challenges, _token

DIGEST = "sha256:" + "0" * 64
HERE = Reference.parse("registry.example.com/team/digits:1")

leaves = st.none() | st.booleans() | st.integers(-2, 1 << 60) | st.floats() | st.text(max_size=8)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
descriptors = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([_media.CONFIG, _media.MANIFEST, "", "é"]) | anything,
        "digest": st.sampled_from([DIGEST, DIGEST.upper(), DIGEST[:-1], "sha512:0"]) | anything,
        "size": st.integers(-1, 9) | anything,
        "annotations": st.dictionaries(st.text(max_size=3), st.text(max_size=3)) | anything,
        "platform": anything,
        "artifactType": anything,
    },
)
manifests = st.fixed_dictionaries(
    {"schemaVersion": st.sampled_from([2, 2, 2, 1, "2"])},
    optional={
        "mediaType": st.sampled_from([_media.MANIFEST, _media.INDEX]) | anything,
        "config": descriptors | anything,
        "layers": st.lists(descriptors, max_size=3) | anything,
        "manifests": st.lists(descriptors, max_size=3) | anything,
        "subject": descriptors | anything,
        "annotations": anything,
        "artifactType": anything,
    },
)
entries = st.fixed_dictionaries(
    {}, optional={key: st.just("YTpi") | anything for key in ("auth", "identitytoken", "username", "password")}
)
keys = st.sampled_from(["registry.example.com", "https://registry.example.com/v1/", "registry.example.com/team", "///"])
configs = st.fixed_dictionaries(
    {},
    optional={
        "auths": st.dictionaries(keys | st.text(max_size=5), entries | anything) | anything,
        "credHelpers": st.dictionaries(keys, st.sampled_from(["no-such-helper", "/bin/sh", ""]) | anything) | anything,
        "credsStore": st.sampled_from(["no-such-helper", "/bin/sh", ""]) | anything,
    },
)


def refused_in_a_line(error: NamedTensorError) -> None:
    assert "\n" not in str(error)
    assert str(error).isprintable()


@given(manifests | anything, st.sampled_from([_media.MANIFEST, _media.INDEX, _media.DOCKER_MANIFEST]))
def test_a_manifest_is_what_it_says_or_refused(document: Any, media_type: str) -> None:
    try:
        found = Manifest.read(json.dumps(document).encode(), media_type, "registry.example.com/a:1")
    except NamedTensorError as error:
        refused_in_a_line(error)
    else:
        for one in (found.config, found.subject, *found.layers, *found.manifests):
            assert one is None or (one.size >= 0 and one.digest.startswith("sha256:") and len(one.digest) == 71)


@given(st.binary(max_size=200))
def test_bytes_are_no_manifest(data: bytes) -> None:
    try:
        Manifest.read(data, _media.MANIFEST, "registry.example.com/a:1")
    except NamedTensorError as error:
        refused_in_a_line(error)


@given(descriptors)
def test_a_descriptor_is_written_as_it_was_read(document: Any) -> None:
    try:
        found = Descriptor.read(document, "here")
    except NamedTensorError as error:
        refused_in_a_line(error)
    else:
        assert Descriptor.read(json.loads(json.dumps(found.json())), "here") == found


@settings(max_examples=60)
@given(config=configs | anything)
def test_a_configuration_has_credentials_or_none_or_is_refused(tmp_path_factory: Any, config: Any) -> None:
    directory: Path = tmp_path_factory.mktemp("docker")
    (directory / "config.json").write_text(json.dumps(config))
    try:
        found = _credentials.find(HERE, environ={"DOCKER_CONFIG": str(directory)})
    except NamedTensorError as error:
        refused_in_a_line(error)
    else:
        assert found is None or isinstance(found.password + found.identity_token, str)


@given(st.text(max_size=60) | st.lists(st.sampled_from(["Bearer", "a", "=", '"', "\\", ",", " ", "b"])).map("".join))
def test_a_challenge_is_read_somehow(header: str) -> None:
    for parameters in _challenges(header).values():
        assert all(isinstance(value, str) for value in parameters.values())


@given(anything.map(json.dumps) | st.text(max_size=20))
def test_a_token_is_one_or_refused(text: str) -> None:
    try:
        found = _token(text.encode(errors="replace"), "registry.example.com")
    except NamedTensorError as error:
        refused_in_a_line(error)
    else:
        assert found.header.isprintable()


def test_two_uploads_of_one_blob_do_not_share_a_note() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with note(HERE, DIGEST) as first:
            first.write("https://registry.example.com/1", 5)
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with note(HERE, DIGEST) as second:
        assert second.read() is None
        second.write("https://registry.example.com/2", 5)
        second.forget()
    leave.set()
    thread.join()
    with note(HERE, DIGEST) as third:
        assert third.read() == ("https://registry.example.com/1", 5)
