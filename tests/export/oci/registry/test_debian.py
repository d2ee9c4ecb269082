"""Against a registry that others wrote, read back by a client that others wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from namedtensor.export.oci import Layout, _media
from namedtensor.export.oci.registry import Client, Pushed, Reference, RegistryError, push
from tests.export.oci.registry import layouts
from tests.export.oci.registry.certificate import self_signed
from tests.export.oci.registry.debian import MISSING, PASSWORD, REASON, USER, Debian, running
from tests.export.oci.registry.layouts import noise

pytestmark = pytest.mark.skipif(bool(MISSING), reason=REASON)

CHUNK = 256 << 10
# A program, and the weights that it comes with.
PROGRAM, WEIGHTS = noise(1, 200_000), noise(2, 3 << 20)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    with running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.simple(tmp_path / "layout", PROGRAM, WEIGHTS)


def send(layout: Layout, text: str) -> Pushed:
    reference = Reference.parse(text)
    with Client(own=reference.registry) as client:
        return push(layout, reference, client, chunk=CHUNK)


def assert_there(debian: Debian, image: str, layout: Layout, directory: Path) -> None:
    """skopeo finds the image under its digest and copies all of it, checking every blob."""
    directory.mkdir(exist_ok=True)
    assert debian.inspect(image)["Digest"] == layout.image()["digest"]
    debian.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{debian.host}/{image}", f"oci:{directory}/copy:1")
    with Layout(directory / "copy") as copy:
        assert copy.image()["digest"] == layout.image()["digest"]
        for one in copy.layers(copy.manifest(copy.image())):
            name = f"blobs/sha256/{one['digest'].removeprefix('sha256:')}"
            assert (copy.path / name).read_bytes() == (layout.path / name).read_bytes()


def test_an_image_is_what_skopeo_finds(debian: Debian, layout: Layout, tmp_path: Path) -> None:
    done = send(layout, f"{debian.host}/digits:1")
    assert done.count("sent") == 3
    assert_there(debian, "digits:1", layout, tmp_path)
    found = debian.inspect("digits:1")
    assert (found["Os"], found["Architecture"]) == ("linux", "amd64")


def test_a_second_push_sends_no_blob(debian: Debian, layout: Layout) -> None:
    send(layout, f"{debian.host}/twice:1")
    before = len(debian.requests())
    done = send(layout, f"{debian.host}/twice:1")
    assert (done.bytes, done.count("present")) == (0, 3)
    assert {line.split()[0] for line in debian.requests()[before:]} <= {"HEAD", "GET"}


def test_a_new_program_sends_less_than_a_megabyte(debian: Debian, layout: Layout, tmp_path: Path) -> None:
    send(layout, f"{debian.host}/changed:1")
    changed = layouts.simple(tmp_path / "changed", noise(3, 200_000), WEIGHTS)
    done = send(changed, f"{debian.host}/changed:2")
    assert 200_000 < done.bytes < 1_000_000
    assert_there(debian, "changed:2", changed, tmp_path)


def test_layers_are_mounted_from_another_repository(debian: Debian, layout: Layout, tmp_path: Path) -> None:
    send(layout, f"{debian.host}/from:1")
    done = send(layout, f"{debian.host}/to:1")
    assert (done.bytes, done.count("mounted")) == (0, 3)
    assert_there(debian, "to:1", layout, tmp_path)


def test_an_index_and_what_refers_to_its_images(debian: Debian, tmp_path: Path) -> None:
    layout = layouts.index(tmp_path / "layout", b"first", b"second")
    done = send(layout, f"{debian.host}/index:1")
    raw = json.loads(debian.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{debian.host}/index:1"))
    assert [one["platform"]["architecture"] for one in raw["manifests"]] == ["amd64", "arm64"]
    reference = Reference.parse(f"{debian.host}/index:1")
    with Client() as client:
        for digest in done.manifests:
            (found,) = client.referrers(reference.at(digest))
            document = client.manifest(reference.at(found.digest))
            about = json.loads(client.blob(reference, document.layers[0]).read_bytes())
            assert about == {"about": digest}
    assert debian.inspect("index:1")["Architecture"] == "amd64"


# Pushes, and kills itself without a warning once so many bytes of the weights are there, or are under way.
KILLED = """\
import os, signal, sys
from pathlib import Path
from namedtensor.export.oci import Layout
from namedtensor.export.oci.registry import Client, Reference, Watcher, push

layout, reference, when, limit = sys.argv[1], Reference.parse(sys.argv[2]), sys.argv[3], int(sys.argv[4])
chunk = 262144 if when == "between chunks" else 1048576
seen = 0

def count(more):
    global seen
    seen += more
    if seen > limit:
        os.kill(os.getpid(), signal.SIGKILL)

def confirmed(digest, so_far):
    if so_far > limit:
        os.kill(os.getpid(), signal.SIGKILL)

watcher = Watcher(confirmed=confirmed) if when == "between chunks" else Watcher(moved=count)
with Client(own=reference.registry) as client:
    push(Layout(Path(layout)), reference, client, chunk=chunk, watcher=watcher)
"""


@pytest.mark.parametrize("when", ["between chunks", "within a chunk"])
def test_a_killed_push_completes_when_it_is_started_again(
    debian: Debian, layout: Layout, tmp_path: Path, when: str
) -> None:
    name = f"killed-{when.split()[0]}"
    old = layouts.simple(tmp_path / "old", b"the image that was there before")
    send(old, f"{debian.host}/{name}:1")

    killed = [sys.executable, "-c", KILLED, str(layout.path), f"{debian.host}/{name}:1", when, "1500000"]
    assert subprocess.run(killed, check=False, timeout=60).returncode == -signal.SIGKILL
    assert_there(debian, f"{name}:1", old, tmp_path / "before")

    done = send(layout, f"{debian.host}/{name}:1")
    assert_there(debian, f"{name}:1", layout, tmp_path / "after")
    sent = {blob.descriptor.size: blob.bytes for blob in done.blobs}
    weights = max(sent)
    # This registry forgets an upload that is cut within a chunk; the blob then goes again, but only that one.
    assert sent[weights] < weights - 1_500_000 + CHUNK if when == "between chunks" else sent[weights] == weights


def test_a_killed_push_leaves_no_tag(debian: Debian, layout: Layout) -> None:
    name = "killed-first:1"
    killed = [sys.executable, "-c", KILLED, str(layout.path), f"{debian.host}/{name}", "between chunks", "1000000"]
    assert subprocess.run(killed, check=False, timeout=60).returncode == -signal.SIGKILL
    assert not debian.has(name)
    send(layout, f"{debian.host}/{name}")
    assert debian.has(name)


def test_a_name_and_a_password(
    layout: Layout, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(tmp_path_factory.mktemp("registry"), htpasswd=True) as debian:
        with pytest.raises(RegistryError, match="needs credentials"):
            send(layout, f"{debian.host}/digits:1")
        monkeypatch.setenv("NAMEDTENSOR_REGISTRY_USERNAME", USER)
        monkeypatch.setenv("NAMEDTENSOR_REGISTRY_PASSWORD", PASSWORD + "!")
        with pytest.raises(RegistryError, match="refuses the credentials") as error:
            send(layout, f"{debian.host}/digits:1")
        assert PASSWORD not in str(error.value)
        monkeypatch.setenv("NAMEDTENSOR_REGISTRY_PASSWORD", PASSWORD)
        assert send(layout, f"{debian.host}/digits:1").count("sent") == 3


def test_a_certificate_that_no_authority_signed(
    layout: Layout, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificate, key = self_signed(tmp_path)
    with running(tmp_path_factory.mktemp("registry"), tls=(certificate, key)) as debian:
        with pytest.raises(RegistryError, match=r"its TLS certificate is not trusted .*--ca-file"):
            send(layout, f"{debian.host}/digits:1")
        reference = Reference.parse(f"{debian.host}/digits:1")
        with Client(ca_file=certificate) as client:
            assert push(layout, reference, client).count("sent") == 3


def test_a_base_image_is_read(debian: Debian, tmp_path: Path) -> None:
    layout = layouts.simple(tmp_path / "layout", PROGRAM)
    send(layout, f"{debian.host}/base:1")
    reference = Reference.parse(f"{debian.host}/base:1")
    with Client() as client:
        manifest = client.manifest(reference)
        assert manifest.descriptor.media_type == _media.MANIFEST
        assert manifest.config is not None
        assert json.loads(client.blob(reference, manifest.config).read_bytes())["architecture"] == "amd64"
        assert client.blob(reference, manifest.layers[0]).stat().st_size == manifest.layers[0].size
