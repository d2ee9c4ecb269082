"""Where a registry may send its clients."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from namedtensor.export.oci.registry import RegistryError
from namedtensor.export.oci.registry._urls import follow, origin, with_query

REGISTRY = "https://registry.example.com/v2/a/blobs/uploads/"
LOCAL = "http://127.0.0.1:5000/v2/a/blobs/uploads/"


@pytest.mark.parametrize(
    ("base", "location", "leads"),
    [
        (REGISTRY, "/v2/a/x?_state=1", "https://registry.example.com/v2/a/x?_state=1"),
        (REGISTRY, "x", "https://registry.example.com/v2/a/blobs/uploads/x"),
        (REGISTRY, "https://store.example.com/x", "https://store.example.com/x"),
        (REGISTRY, "//store.example.com/x", "https://store.example.com/x"),
        # Behind a proxy that speaks TLS for it.
        (REGISTRY, "http://registry.example.com/x", "https://registry.example.com/x"),
        (REGISTRY, "http://registry.example.com:80/x", "https://registry.example.com/x"),
        ("https://a.example.com:8443/", "http://a.example.com/x", "https://a.example.com:8443/x"),
        (LOCAL, "http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
        (LOCAL, "http://[::1]:9000/x", "http://[::1]:9000/x"),
    ],
)
def test_these_are_followed(base: str, location: str, leads: str) -> None:
    assert follow(location, base) == leads


@pytest.mark.parametrize(
    ("base", "location", "says"),
    [
        (REGISTRY, "http://store.example.com/x", "without TLS"),
        (LOCAL, "http://store.example.com/x", "without TLS"),
        (REGISTRY, "https://localhost/x", "their own machine"),
        (REGISTRY, "http://127.0.0.1:8080/admin", "their own machine"),
        (REGISTRY, "https://[::1]/x", "their own machine"),
        (REGISTRY, "file:///etc/passwd", "not http"),
        (REGISTRY, "https://ann:hunter2@store.example.com/x", "not http"),
        (REGISTRY, "https://registry.example.com\\@evil.example.com/x", "none"),
        (REGISTRY, "https://store.example.com:port/x", "none"),
        (REGISTRY, "https://[::1/x", "none"),
        (REGISTRY, "https://store.example.com/\r\nx: y", "none"),
    ],
)
def test_these_are_not(base: str, location: str, says: str) -> None:
    with pytest.raises(RegistryError, match=says) as error:
        follow(location, base)
    assert "hunter2" not in str(error.value)


def test_plain_http_is_followed_where_it_was_asked_for() -> None:
    base = "http://registry.example.com/v2/"
    assert follow("http://store.example.com/x", base, plain_http=True) == "http://store.example.com/x"


@given(st.text(alphabet="https:/@\\.#?[]%1aé evil", max_size=40))
def test_the_host_that_is_judged_is_the_host_that_is_called(text: str) -> None:
    try:
        leads = follow(text, REGISTRY, plain_http=True)
    except RegistryError:
        return
    assert httpx2.URL(leads).host == origin(leads)[1]


def test_a_query_is_added_to() -> None:
    assert with_query("https://a/b", digest="sha256:0") == "https://a/b?digest=sha256%3A0"
    assert with_query("https://a/b?_state=x%3D", digest="0") == "https://a/b?_state=x%3D&digest=0"
