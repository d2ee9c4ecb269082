"""From an archive to a registry and back: built, pushed, fetched and unpacked by others, run."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from namedtensor import InputError
from namedtensor.cli import main
from namedtensor.export import oci
from tests.export.oci.conftest import Read, confined, needs
from tests.export.oci.registry.certificate import self_signed
from tests.export.oci.registry.debian import Debian, running
from tests.export.oci.test_base import LAYER, based
from tests.export.oci.test_build import SCAN

pytestmark = needs("docker-registry", "skopeo")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    with running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's credentials, and a cache with nothing in it."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path / "home" / "cache"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def push(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def pushed(source: Path, destination: str) -> Any:
        capsys.readouterr()
        assert main(["image", "push", str(source), destination, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return pushed


@needs("umoci", "bwrap")
@pytest.mark.skipif(not confined(), reason="bubblewrap may not make namespaces here")
def test_what_was_pushed_is_fetched_unpacked_and_run_by_others(
    debian: Debian, real: Path, tmp_path: Path, push: Callable[..., Any]
) -> None:
    # Debian's umoci reads only gzip.
    oci.build([real], tmp_path / "layout", compression="gzip")
    push(tmp_path / "layout", f"{debian.host}/digits:1")
    assert debian.inspect("digits:1")["Labels"]["namedtensor.model"] == "digits"
    debian.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{debian.host}/digits:1", f"oci:{tmp_path}/copy:1")
    called("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'copy'}:1", str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    shutil.copy(SCAN, root / "data" / "scan.png")
    entry = json.loads((tmp_path / "bundle" / "config.json").read_text())["process"]
    found = called(
        *("bwrap", "--ro-bind", str(root), "/", "--unshare-all", "--uid", "65532", "--gid", "65532", "--clearenv"),
        *("--chdir", entry["cwd"], *entry["args"], "scan.png", "--json"),
    )
    assert json.loads(found)["images"][0]["labels"][0]["label"] == SCAN.name[0]


def called(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize(
    ("path", "limit"), [("targets/cpu-x86-64-v3/classify.ntx", 100_000), ("weights/model.safetensors", 20_000)]
)
def test_a_new_version_sends_only_what_changed(
    debian: Debian, digits: Path, changed: Callable[..., Path], push: Callable[..., Any], path: str, limit: int
) -> None:
    repository = f"{debian.host}/{'weights' if 'weights' in path else 'program'}"
    everything = push(digits, f"{repository}:1")["sent_bytes"]
    again = push(changed("another", {path: b"something else"}), f"{repository}:2")["sent_bytes"]
    assert 0 < again < min(limit, everything)


def test_a_base_is_taken_from_a_registry(
    debian: Debian, digits: Path, tmp_path: Path, push: Callable[..., Any]
) -> None:
    based(tmp_path / "base")
    push_base = ["image", "push", str(tmp_path / "base"), f"{debian.host}/base:1", "--tag", "one"]
    assert main(push_base) == 0
    oci.build([digits], tmp_path / "layout", on=f"{debian.host}/base:1")
    image = Read(tmp_path / "layout")
    assert image.blob(image.manifest["layers"][0]) == LAYER
    annotations = image.manifest["annotations"]
    assert annotations["org.opencontainers.image.base.name"] == f"{debian.host}/base:1"
    assert annotations["org.opencontainers.image.base.digest"] == debian.inspect("base:1")["Digest"]
    push(tmp_path / "layout", f"{debian.host}/upon:1")
    assert debian.inspect("upon:1")["Layers"][0] == image.manifest["layers"][0]["digest"]


def test_a_base_is_read_with_the_authorities_that_are_given(
    digits: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = self_signed(tmp_path)
    based(tmp_path / "base")
    with running(tmp_path_factory.mktemp("secured"), tls=(certificate, key)) as secured:
        trusted, name = ["--ca-file", str(certificate)], f"{secured.host}/base:1"
        assert main(["image", "push", str(tmp_path / "base"), name, "--tag", "one", *trusted]) == 0
        build = ["image", "build", str(digits), "-o", str(tmp_path / "layout"), "--base", name]
        assert main(build) == 1
        assert "its TLS certificate is not trusted" in capsys.readouterr().err
        assert main([*build, *trusted]) == 0
    image = Read(tmp_path / "layout")
    assert image.blob(image.manifest["layers"][0]) == LAYER


def test_a_base_is_read_without_tls_where_that_is_asked_for(
    debian: Debian, digits: Path, tmp_path: Path, push: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    based(tmp_path / "base")
    assert main(["image", "push", str(tmp_path / "base"), f"{debian.host}/base:2", "--tag", "one"]) == 0
    # Another machine by its name, so that TLS is what there has to be.
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve("127.0.0.1", *rest, **options))
    name = f"registry.example:{debian.host.rpartition(':')[2]}/base:2"
    build = ["image", "build", str(digits), "-o", str(tmp_path / "layout"), "--base", name]
    assert main(build) == 1
    assert main([*build, "--plain-http"]) == 0
    image = Read(tmp_path / "layout")
    assert image.manifest["annotations"]["org.opencontainers.image.base.name"] == name


@pytest.mark.parametrize("base", [[], ["--base", "oci:LAYOUT"]])
def test_how_to_talk_to_a_registry_is_said_of_a_base_in_one(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], base: list[str]
) -> None:
    assert main(["image", "build", str(digits), "-o", str(tmp_path / "layout"), *base, "--plain-http"]) == 2
    assert "are for the registry that --base is in" in capsys.readouterr().err


def test_with_the_cache_off_a_base_is_read_and_nothing_is_kept(
    debian: Debian, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    based(tmp_path / "base")
    (tmp_path / "working").mkdir()
    (tmp_path / "temporary").mkdir()
    start = "import sys; from namedtensor.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "image"]
    environment = {**os.environ, "NAMEDTENSOR_CACHE": "off", "TMPDIR": str(tmp_path / "temporary")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    for arguments in (
        ["push", str(tmp_path / "base"), f"{debian.host}/base:3", "--tag", "one"],
        ["build", str(digits), "-o", str(tmp_path / "layout"), "--base", f"{debian.host}/base:3"],
    ):
        subprocess.run([*command, *arguments], cwd=tmp_path / "working", env=environment, check=True, timeout=60)
    image = Read(tmp_path / "layout")
    assert image.blob(image.manifest["layers"][0]) == LAYER
    assert [path for place in ("working", "temporary", "home") for path in (tmp_path / place).iterdir()] == []


def test_a_base_that_is_not_there_is_said_in_one_line(debian: Debian, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with pytest.raises(InputError, match="there is no image") as caught:
        oci.build([digits], tmp_path / "output" / "layout", on=f"{debian.host}/missing:1")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "output").iterdir()) == []
