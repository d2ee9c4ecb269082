"""Where names and passwords come from, and where they never go."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from namedtensor._errors import InputError
from namedtensor.export.oci.registry import Reference, RegistryError, _credentials
from namedtensor.export.oci.registry._credentials import Credentials, find
from namedtensor.zoo import ChoiceError

HOST = "registry.example.com"
HERE = Reference.parse(f"{HOST}/team/digits:1")
HUB = Reference.parse("debian:12")
SECRET = "hunter2"


def auth(name: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def docker(home: Path, config: Any) -> Path:
    path = home / ".docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A program docker-credential-NAME, which finds the server's name in $server."""
    place = home / "bin"
    place.mkdir(exist_ok=True)
    program = place / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 2\nread -r server || [ "$server" ] || exit 2\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")


def answer(name: str, secret: str = SECRET) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': name, 'Secret': secret})}'"


def test_without_anything_there_are_none() -> None:
    assert find(HERE) is None


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"https://{HOST}/v2/", f"{HOST}/team"])
def test_dockers_file_has_them(home: Path, key: str) -> None:
    docker(home, {"auths": {key: auth("ann"), "elsewhere.example.com": auth("bob")}})
    assert find(HERE) == Credentials("ann", SECRET)


def test_the_most_particular_entry_counts(home: Path) -> None:
    docker(home, {"auths": {HOST: auth("all"), f"{HOST}/team": auth("team"), f"{HOST}/team/digits": auth("digits")}})
    assert find(HERE) == Credentials("digits", SECRET)
    assert find(Reference.parse(f"{HOST}/team/other")) == Credentials("team", SECRET)
    assert find(Reference.parse(f"{HOST}/teammates/other")) == Credentials("all", SECRET)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_has_many_names(home: Path, key: str) -> None:
    docker(home, {"auths": {key: auth("ann")}})
    assert find(HUB) == Credentials("ann", SECRET)


def test_a_password_may_hold_a_colon(home: Path) -> None:
    docker(home, {"auths": {HOST: auth("ann", "a:b:c")}})
    assert find(HERE) == Credentials("ann", "a:b:c")


def test_an_identity_token_goes_before_a_password(home: Path) -> None:
    docker(home, {"auths": {HOST: {**auth("ann"), "identitytoken": "a-token"}}})
    found = find(HERE)
    assert found is not None
    assert found.identity_token == "a-token"


def test_the_files_have_an_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(home, {"auths": {HOST: auth("docker")}})
    podman = home / ".config" / "containers" / "auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {HOST: auth("podman")}}))
    assert find(HERE) == Credentials("podman", SECRET)
    other = home / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"auths": {HOST: auth("chosen")}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(other))
    assert find(HERE) == Credentials("chosen", SECRET)
    (other / "auth.json").write_text(json.dumps({"auths": {}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(other / "auth.json"))
    assert find(HERE) is None, "a file that is named is the only one"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(other / "missing.json"))
    with pytest.raises(InputError, match="there is no file"):
        find(HERE)


def test_a_helper_of_the_registry_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "one", answer("one"))
    helper(home, monkeypatch, "all", answer("all"))
    docker(home, {"credHelpers": {HOST: "one"}, "credsStore": "all", "auths": {HOST: {}}})
    assert find(HERE) == Credentials("one", SECRET)
    assert find(Reference.parse("elsewhere.example.com/a")) == Credentials("all", SECRET)


def test_a_helper_is_told_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo", """printf '{"Username": "%s", "Secret": "x"}' "$server" """)
    docker(home, {"credsStore": "echo"})
    assert find(HERE) == Credentials(HOST, "x")
    assert find(HUB) == Credentials("https://index.docker.io/v1/", "x")


def test_a_helpers_token_is_an_identity_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "one", answer("<token>", "a-token"))
    docker(home, {"credsStore": "one"})
    found = find(HERE)
    assert found is not None
    assert found.identity_token == "a-token"


def test_a_helper_may_have_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "one", "echo credentials not found in native keychain; exit 1")
    docker(home, {"credsStore": "one"})
    assert find(HERE) is None


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"echo {SECRET} >&2; echo {SECRET}; exit 1", r"docker-credential-one failed .*\(exit code 1\)"),
        (f"echo {SECRET}", "answered something else"),
        (f'echo \'{{"Username": 3, "Secret": "{SECRET}"}}\'', "answered something else"),
        ("exec sleep 60", "did not answer within 0.2 s"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(_credentials, "_HELPER_TIMEOUT_S", 0.2 if "sleep" in script else 20)
    helper(home, monkeypatch, "one", script)
    docker(home, {"credsStore": "one"})
    with pytest.raises(RegistryError, match=says) as error:
        find(HERE)
    assert SECRET not in str(error.value)


def test_a_helper_that_is_not_there_is_named(home: Path) -> None:
    docker(home, {"credsStore": "nowhere"})
    with pytest.raises(RegistryError, match=r"docker-credential-nowhere, .* is not on PATH"):
        find(HERE)


@pytest.mark.parametrize("name", ["../../bin/sh", "a/b", "a b", "a;b"])
def test_a_helper_is_a_name_and_not_a_path(home: Path, name: str) -> None:
    docker(home, {"credHelpers": {HOST: name}})
    with pytest.raises(InputError, match="cannot be a program's name"):
        find(HERE)


@pytest.mark.parametrize(
    "config",
    [
        f"{{{SECRET}",
        f'["{SECRET}"]',
        "[" * 100_000,
        {"auths": {HOST: {"auth": SECRET}}},
        {"auths": {HOST: {"auth": base64.b64encode(SECRET.encode()).decode()}}},
    ],
)
def test_a_file_that_is_damaged_is_named_and_not_quoted(home: Path, config: Any) -> None:
    path = docker(home, config)
    with pytest.raises(InputError) as error:
        find(HERE)
    assert str(path) in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_the_environment_goes_first_and_is_for_one_registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(home, {"auths": {HOST: auth("file")}})
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY_USERNAME", "ann")
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY_PASSWORD", SECRET)
    assert find(HERE, own=HOST) == Credentials("ann", SECRET)
    assert find(HUB, own=HOST) is None, "the registry of a base image is another"
    assert find(HERE) == Credentials("file", SECRET), "nothing says that they are for this one"
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY", "elsewhere.example.com")
    assert find(HERE, own=HOST) == Credentials("file", SECRET)
    monkeypatch.setenv("NAMEDTENSOR_REGISTRY", HOST)
    assert find(HERE) == Credentials("ann", SECRET)


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_half_of_the_environment_is_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"NAMEDTENSOR_REGISTRY_{name}", SECRET)
    with pytest.raises(ChoiceError, match="is set, but not") as error:
        find(HERE, own=HOST)
    assert SECRET not in str(error.value)


def test_secrets_are_not_in_their_description() -> None:
    assert SECRET not in repr(Credentials("ann", SECRET))
    assert SECRET not in repr(Credentials("<token>", identity_token=SECRET))
