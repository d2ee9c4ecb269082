"""The example, built, tested and pushed to Debian's docker-registry on loopback, with no network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.conftest import Bazel
from tests.export.oci.registry import debian

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(debian.MISSING), reason=debian.REASON)]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[debian.Debian]:
    with debian.running(tmp_path_factory.mktemp("registry")) as found:
        yield found


def uploads(registry: debian.Debian) -> int:
    return sum(" /v2/" in line and "/blobs/uploads/" in line for line in registry.requests())


def test_the_image_is_pushed_and_the_second_time_nothing_is_sent(bazel: Bazel, registry: debian.Debian) -> None:
    repository = f"{registry.host}/models/digits"
    bazel.succeeds("run", "//models/digits:push", "--", "--repository", repository)
    found = registry.inspect("models/digits:latest")
    assert found["Os"] == "linux"
    sent = uploads(registry)
    bazel.succeeds("run", "//models/digits:push", "--", "--repository", repository, "--tag", "v1", "--tag=stable")
    assert bazel.actions == {}
    assert uploads(registry) == sent
    assert registry.inspect("models/digits:v1")["Digest"] == found["Digest"]
    assert registry.inspect("models/digits:stable")["Digest"] == found["Digest"]


def test_the_image_is_a_layout_that_others_read(bazel: Bazel, tmp_path: Path) -> None:
    bazel.succeeds("build", "//models/digits:image")
    image = f"oci-archive:{bazel.built / 'image.tar'}:latest"
    done = subprocess.run(["skopeo", "inspect", "--config", image], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["os"] == "linux"


def test_without_a_repository_it_says_what_to_give(bazel: Bazel) -> None:
    assert "say -- --repository HOST/REPO" in bazel.fails("run", "//models/digits:push")


def test_a_registry_that_is_not_there_is_one_line(bazel: Bazel) -> None:
    said = bazel.fails("run", "//models/digits:push", "--", "--repository", "127.0.0.1:1/digits")
    assert "namedtensor: error:" in said
    assert "Traceback" not in said
