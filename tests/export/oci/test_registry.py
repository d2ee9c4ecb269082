"""From an archive to a registry and back: built, pushed, fetched and unpacked by others, run."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from namedtensor import InputError
from namedtensor.cli import main
from namedtensor.export import oci
from tests.export.oci.conftest import Read, confined, needs
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


def test_a_base_that_is_not_there_is_said_in_one_line(debian: Debian, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with pytest.raises(InputError, match="there is no image") as caught:
        oci.build([digits], tmp_path / "output" / "layout", on=f"{debian.host}/missing:1")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "output").iterdir()) == []
