"""Answers to a registry that asks who is there; and hosts that have no business to know."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from namedtensor.export.oci import Layout
from namedtensor.export.oci.registry import Client, Pushed, Reference, RegistryError, push
from namedtensor.export.oci.registry._tokens import _challenges
from tests.export.oci.registry import layouts
from tests.export.oci.registry.certificate import self_signed
from tests.export.oci.registry.pushing import HASTY, SHORT
from tests.export.oci.registry.scripted import UPLOADS, Fault, Handler, Registry, Request, error, serving, status

SECRET, TOKEN = "hunter2", "t0ken-of-ann"
BASIC = "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
BEARER = f"Bearer {TOKEN}"


@pytest.fixture
def ann(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann's credentials, for whatever is pushed to."""
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY_USERNAME", "ann")
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY_PASSWORD", SECRET)


@pytest.fixture
def tokens() -> Iterator[Registry]:
    """The server where registries send their clients for tokens."""
    with serving(Registry()) as found:
        yield found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.simple(tmp_path / "layout", b"content")


def send(registry: Registry, layout: Layout, **options: object) -> Pushed:
    reference = Reference.parse(f"{registry.host}/team/digits:1")
    with Client(own=registry.host, patience=HASTY, timeouts=SHORT) as client:
        return push(layout, reference, client, **options)  # type: ignore[arg-type]


def wants(header: str, challenge: str) -> Callable[[Request], dict[str, str] | None]:
    return lambda request: None if request.headers.get("authorization") == header else {"WWW_Authenticate": challenge}


def issue(token: str = TOKEN, **more: object) -> Fault:
    return status(200, json.dumps({"token": token, **more}).encode())


def bearer(registry: Registry, tokens: Registry, *, path: str = "/token") -> None:
    """Let `registry` want Ann's token, and name `tokens` as the server that gives it."""
    registry.authorize = wants(BEARER, f'Bearer realm="http://{tokens.host}{path}",service="a registry"')


def refused_for_good(registry: Registry, layout: Layout, says: str) -> None:
    with pytest.raises(RegistryError, match=says) as found:
        send(registry, layout)
    text = str(found.value)
    assert "\n" not in text
    assert not any(secret in text for secret in (SECRET, TOKEN, BASIC.removeprefix("Basic ")))
    assert not registry.manifests


@pytest.mark.usefixtures("ann")
def test_basic_credentials_are_sent_once_they_are_asked_for(registry: Registry, layout: Layout) -> None:
    registry.authorize = wants(BASIC, 'Basic realm="here"')
    assert send(registry, layout).count("sent") == 2
    asked = [one for one in registry.requests if one.path.startswith("/v2/team")]
    assert "authorization" not in asked[0].headers
    assert sum("authorization" not in one.headers for one in asked) <= 2, "each thread asks once at most"


@pytest.mark.usefixtures("ann")
def test_a_token_is_fetched_once_with_the_scope_of_the_push(
    registry: Registry, tokens: Registry, layout: Layout
) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", issue(expires_in=300))
    send(registry, layout)
    (asked,) = tokens.requests
    assert asked.query == {"service": "a registry", "scope": "repository:team/digits:pull,push"}
    assert asked.headers["authorization"] == BASIC
    assert registry.image("team/digits", "1")


def test_without_credentials_a_token_is_asked_for_anonymously(
    registry: Registry, tokens: Registry, layout: Layout
) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", issue())
    send(registry, layout)
    assert "authorization" not in tokens.requests[0].headers


@pytest.mark.usefixtures("ann")
def test_a_token_that_ran_out_is_fetched_again(registry: Registry, tokens: Registry, layout: Layout) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", issue("an-old-one"), issue())
    # The old one is good for the first requests.
    left = 3

    def authorize(request: Request) -> dict[str, str] | None:
        nonlocal left
        if request.headers.get("authorization") == "Bearer an-old-one" and left:
            left -= 1
            return None
        return wants(BEARER, f'Bearer realm="http://{tokens.host}/token"')(request)

    registry.authorize = authorize
    send(registry, layout, parallel=1)
    assert len(tokens.requests) == 2


@pytest.mark.usefixtures("ann")
def test_where_tokens_are_only_posted_for_they_are(registry: Registry, tokens: Registry, layout: Layout) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", status(405))

    def give(handler: Handler, request: Request) -> bool:
        request.body = handler.rfile.read(int(request.headers["content-length"]))
        return status(200, json.dumps({"access_token": TOKEN}).encode())(handler, request)

    tokens.fault("POST", "/token", give)
    send(registry, layout)
    form = {name: values[0] for name, values in parse_qs(tokens.requests[-1].body.decode()).items()}
    assert form == {
        "grant_type": "password",
        "username": "ann",
        "password": SECRET,
        "service": "a registry",
        "scope": "repository:team/digits:pull,push",
        "client_id": "namedtensor",
    }


def test_an_identity_token_buys_others(registry: Registry, tokens: Registry, layout: Layout, home: Path) -> None:
    (home / ".docker").mkdir()
    config = {"auths": {registry.host: {"identitytoken": "the-identity"}}}
    (home / ".docker" / "config.json").write_text(json.dumps(config))
    bearer(registry, tokens)

    def give(handler: Handler, request: Request) -> bool:
        request.body = handler.rfile.read(int(request.headers["content-length"]))
        return status(200, json.dumps({"access_token": TOKEN}).encode())(handler, request)

    tokens.fault("POST", "/token", give)
    send(registry, layout)
    form = parse_qs(tokens.requests[-1].body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["the-identity"])


@pytest.mark.usefixtures("ann")
def test_a_mount_asks_for_the_other_repository_too_but_does_without(
    registry: Registry, tokens: Registry, layout: Layout
) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", *[issue(expires_in=300)] + [status(403)] * 9)
    assert send(registry, layout, mount_from=["base"], parallel=1).count("sent") == 2
    assert tokens.requests[1].query["scope"].startswith("repository:")
    assert "/team/digits" in registry.requests[-1].path


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("code", [400, 401, 403])
def test_a_token_server_may_refuse(registry: Registry, tokens: Registry, layout: Layout, code: int) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", *[error(code, "DENIED", f"{SECRET} is wrong")] * 9)
    refused_for_good(registry, layout, "refuses the credentials for team/digits")


def test_who_has_no_credentials_is_told_where_to_get_them(registry: Registry, tokens: Registry, layout: Layout) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", *[issue("not-enough")] * 9)
    refused_for_good(registry, layout, f"needs credentials for team/digits.*`docker login {registry.host}`")


@pytest.mark.usefixtures("ann")
def test_a_token_server_that_stumbles_is_asked_again(registry: Registry, tokens: Registry, layout: Layout) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", status(503), status(429, Retry_After="0"), issue())
    send(registry, layout)
    assert registry.image("team/digits", "1")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\nb"}', b'{"token": "a", "expires_in": "b"}', b"[" * 9999],
)
def test_a_token_server_that_answers_nonsense(
    registry: Registry, tokens: Registry, layout: Layout, body: bytes
) -> None:
    bearer(registry, tokens)
    tokens.fault("GET", "/token", *[status(200, body)] * 9)
    refused_for_good(registry, layout, "something else than a token")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        ("", "asks for nothing"),
        ("Negotiate", "asks for negotiate"),
        ("Bearer", "does not say where"),
        ('Bearer realm="ftp://example.com/"', "an address that is not http"),
        ('Bearer realm="http://example.com/token"', "without TLS"),
        (f'Bearer realm="http://ann:{SECRET}@127.0.0.1/"', "an address that is not http"),
    ],
)
def test_a_challenge_that_cannot_be_answered(registry: Registry, layout: Layout, challenge: str, says: str) -> None:
    registry.authorize = wants(BEARER, challenge)
    refused_for_good(registry, layout, says)


@pytest.mark.usefixtures("ann")
def test_what_a_registry_repeats_of_a_secret_is_left_out(registry: Registry, layout: Layout) -> None:
    registry.authorize = wants(BASIC, "Basic")

    def repeat(handler: Handler, request: Request) -> bool:
        return error(403, "DENIED", f"{request.headers.get('authorization')} alias {SECRET}")(handler, request)

    registry.fault("POST", UPLOADS, *[repeat] * 9)
    refused_for_good(registry, layout, r"DENIED: Basic \*\*\* alias \*\*\*")


@pytest.mark.usefixtures("ann")
def test_another_host_never_sees_credentials(registry: Registry, tokens: Registry, layout: Layout) -> None:
    """Neither where the registry redirects to, nor where it lets blobs be uploaded to."""
    registry.authorize = wants(BASIC, "Basic")
    store = tokens
    for name in ("first", "second"):
        store.uploads[name] = bytearray()

        def elsewhere(handler: Handler, request: Request, name: str = name) -> bool:
            return status(202, Location=f"http://{store.host}/v2/store{UPLOADS}{name}")(handler, request)

        registry.fault("POST", UPLOADS, elsewhere)
    with pytest.raises(RegistryError):
        # The blobs end in the other store, where the registry does not find them.
        send(registry, layout)
    assert store.count("PUT") == 2
    assert not any("authorization" in one.headers for one in store.requests)

    reference = Reference.parse(f"{registry.host}/team/digits:1")
    registry.fault("GET", "/manifests/", status(307, Location=f"http://{store.host}/v2/store/manifests/1"))
    store.authorize = wants(BASIC, "Basic")
    with Client(own=registry.host, patience=HASTY) as client, pytest.raises(RegistryError, match="of its own"):
        client.manifest(reference)
    assert not any("authorization" in one.headers for one in store.requests)


@pytest.mark.usefixtures("ann")
def test_a_registry_with_tls_is_left_only_for_others_with_tls(layout: Layout, tmp_path: Path) -> None:
    import ssl

    certificate, key = self_signed(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(Registry(), tls) as registry:
        reference = Reference.parse(f"{registry.host}/team/digits:1")
        with pytest.raises(RegistryError, match="certificate is not trusted"):
            send(registry, layout)
        with Client(own=registry.host, ca_file=certificate, patience=HASTY) as client:
            registry.fault("POST", UPLOADS, status(202, Location="http://example.com/upload"))
            with pytest.raises(RegistryError, match="without TLS"):
                push(layout, reference, client)
        assert not registry.manifests
        with Client(own=registry.host, ca_file=certificate, patience=HASTY) as client:
            # A proxy that speaks TLS for a registry which does not know of it.
            def unaware(handler: Handler, request: Request) -> bool:
                handler.registry.uploads["x"] = bytearray()
                location = f"http://{registry.host}/v2/team/digits{UPLOADS}x"
                return status(202, Location=location)(handler, request)

            registry.fault("POST", UPLOADS, unaware)
            push(layout, reference, client)
        assert registry.image("team/digits", "1")


def test_a_challenge_may_name_several_ways_with_quoted_commas() -> None:
    found = _challenges(
        'Negotiate, Basic realm="a, \\"b\\"", Bearer realm="https://x/y",scope="repository:a:pull,push",e=""'
    )
    assert found == {
        "negotiate": {},
        "basic": {"realm": 'a, "b"'},
        "bearer": {"realm": "https://x/y", "scope": "repository:a:pull,push", "e": ""},
    }
