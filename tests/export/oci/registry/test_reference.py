"""Names of images, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namedtensor.export.oci.registry import Reference
from namedtensor.zoo import ChoiceError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("localhost:5000/team/digits:1.2", "localhost:5000", "team/digits", "1.2", None),
        ("localhost/digits", "localhost", "digits", "latest", None),
        ("[::1]:5000/digits:a", "[::1]:5000", "digits", "a", None),
        ("registry.example.com/a/b/c__d", "registry.example.com", "a/b/c__d", "latest", None),
        ("debian", "docker.io", "library/debian", "latest", None),
        ("debian:12-slim", "docker.io", "library/debian", "12-slim", None),
        ("team/digits:1", "docker.io", "team/digits", "1", None),
        ("index.docker.io/team/digits", "docker.io", "team/digits", "latest", None),
        (f"ghcr.io/team/digits@{DIGEST}", "ghcr.io", "team/digits", None, DIGEST),
        (f"ghcr.io/team/digits:1@{DIGEST}", "ghcr.io", "team/digits", "1", DIGEST),
    ],
)
def test_a_name_has_these_parts(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)


def test_docker_hub_is_reached_under_another_name_than_it_goes_by() -> None:
    found = Reference.parse("debian")
    assert str(found) == "docker.io/library/debian:latest"
    assert found.host == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("localhost:5000/Team/digits", "did you mean 'team/digits'"),
        ("https://ghcr.io/team/digits", "has no scheme; write 'ghcr.io/team/digits'"),
        ("ghcr.io/team/digits:", "no tag"),
        ("ghcr.io/team/digits:a b", "no tag"),
        ("ghcr.io/team/digits@sha256:12", "digest"),
        ("ghcr.io/", "names no repository"),
        ("", "names no repository"),
        ("localhost:99999/a", "no registry's host"),
        ("exa_mple.com/a", "no registry's host"),
        ("ghcr.io/a//b", "no repository's name"),
        ("ghcr.io/" + "a" * 300, "no repository's name"),
    ],
)
def test_what_is_no_name_is_refused(text: str, says: str) -> None:
    with pytest.raises(ChoiceError, match=says):
        Reference.parse(text)


def test_a_password_in_a_name_is_not_repeated() -> None:
    with pytest.raises(ChoiceError) as error:
        Reference.parse("user:hunter2@ghcr.io/team/digits")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "a.localhost"]
)
def test_this_machine_is_known(host: str) -> None:
    assert Reference.parse(f"{host}/a").is_loopback


@pytest.mark.parametrize("host", ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "[::2]", "ghcr.io"])
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    assert not Reference.parse(f"{host}/a").is_loopback


@given(st.text(max_size=80))
def test_any_text_is_a_name_that_is_read_again_or_refused_in_one_line(text: str) -> None:
    try:
        found = Reference.parse(text)
    except ChoiceError as error:
        assert "\n" not in str(error)
    else:
        assert Reference.parse(str(found)) == found
