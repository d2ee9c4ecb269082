"""Images upon others: their layers stay as they are, their configuration is merged, what does not fit is refused."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from namedtensor import InputError, ModelError
from namedtensor.export import oci
from namedtensor.export.oci import _libraries, _media
from namedtensor.export.oci._layout import encode, writing
from tests.export.oci.conftest import Read, confined, needs

LAYER = b"what the base holds"


def based(output: Path, *, layer: bytes = LAYER, kind: str = f"{_media.LAYER}+gzip", **config: Any) -> str:
    """An image to build upon; returns its name."""
    with writing(output) as layout:
        below = layout.add(layer, kind)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/bin", "LD_LIBRARY_PATH=/opt/lib"],
                "Cmd": ["sh"],
                "Labels": {"vendor": "someone"},
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "someone"}, {"created_by": "ENV", "empty_layer": True}],
            **config,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _media.MANIFEST,
            "config": layout.add(encode(document), _media.CONFIG),
        }
        image = layout.add(encode({**manifest, "layers": [below]}), _media.MANIFEST)
        listed = [
            {**image, "platform": {"architecture": "arm64", "os": "linux"}, "digest": "sha256:" + "0" * 64},
            {**image, "platform": {"architecture": "amd64", "os": "linux"}},
        ]
        index = layout.add(encode({"schemaVersion": 2, "manifests": listed}), _media.INDEX)
        tags = [(image, "one"), (index, "many")]
        layout.finish([{**one, "annotations": {_media.REF_NAME: tag}} for one, tag in tags])
    return f"oci:{output}"


@pytest.mark.parametrize("tag", ["one", "many"])
def test_layers_of_the_base_are_taken_by_digest(digits: Path, tmp_path: Path, tag: str) -> None:
    oci.build([digits], tmp_path / "layout", on=f"{based(tmp_path / 'base')}:{tag}")
    image = Read(tmp_path / "layout")
    assert image.blob(image.manifest["layers"][0]) == LAYER
    assert len(image.config["rootfs"]["diff_ids"]) == len(image.manifest["layers"]) == 5
    assert sum(not one.get("empty_layer") for one in image.config["history"]) == 5
    assert (
        image.manifest["annotations"]["org.opencontainers.image.base.digest"] == Read(tmp_path / "base").image["digest"]
    )


def test_the_configuration_is_merged(digits: Path, tmp_path: Path) -> None:
    oci.build([digits], tmp_path / "layout", on=f"{based(tmp_path / 'base')}:one")
    config = Read(tmp_path / "layout").config["config"]
    assert config["Env"] == ["PATH=/usr/bin", "LD_LIBRARY_PATH=/opt/lib"]
    assert (config["Entrypoint"], config["User"]) == (["/digits/digits"], "65532:65532")
    assert "Cmd" not in config
    assert config["Labels"]["vendor"] == "someone"
    assert config["Labels"]["namedtensor.model"] == "digits"


def test_docker_s_names_of_layers_become_oci_s(digits: Path, tmp_path: Path) -> None:
    oci.build([digits], tmp_path / "layout", on=f"{based(tmp_path / 'base', kind=_media.DOCKER_LAYER)}:one")
    assert Read(tmp_path / "layout").manifest["layers"][0]["mediaType"] == f"{_media.LAYER}+gzip"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architecture": "arm64"}, "for architecture 'arm64'"),
        ({"os": "windows"}, "for os 'windows'"),
        ({"rootfs": {"diff_ids": []}}, "of other layers"),
        ({"rootfs": 3}, "of other layers"),
        ({"config": {"Env": "PATH"}}, "none of OCI's"),
        ({"config": {"Env": [3]}}, "none of OCI's"),
        ({"config": {"Labels": {"a": {}}}}, "none of OCI's"),
        ({"config": 3}, "none of OCI's"),
        ({"kind": "application/vnd.oci.image.layer.nondistributable.v1.tar"}, "cannot be passed on"),
    ],
    ids=str,
)
def test_a_base_that_does_not_fit_is_refused(digits: Path, tmp_path: Path, config: Any, problem: str) -> None:
    name = based(tmp_path / "base", **config)
    with pytest.raises(InputError, match=problem):
        oci.build([digits], tmp_path / "layout", on=f"{name}:one")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_damaged_layer_of_the_base_is_not_passed_on(digits: Path, tmp_path: Path) -> None:
    name = based(tmp_path / "base")
    (tmp_path / "base" / "blobs" / "sha256" / hashlib.sha256(LAYER).hexdigest()).write_bytes(b"x" * len(LAYER))
    with pytest.raises(InputError, match="is damaged"):
        oci.build([digits], tmp_path / "layout", on=f"{name}:one")


# The system's libraries, for archives with plugins

CUDA = {
    "releases": {"jax-cuda13-pjrt": "0.11.2"},
    "library": "plugins/cuda/plugin.so",
    "host": ["libstdc++.so.6"],
    "left_out": {},
}
# A program that is linked dynamically, in the place of the runner that plugins are loaded into.
PROGRAM = Path("/bin/true").resolve()


@pytest.fixture
def with_plugin(changed: Callable[..., Path]) -> Callable[..., Path]:
    def change(**plugin: Any) -> Path:
        files = {"plugins/cuda/plugin.so": b"a plugin", "plugins/runner": PROGRAM.read_bytes()}
        return changed("plugin", files, plugins={"cuda": {**CUDA, **plugin}})

    return change


def test_an_archive_with_a_plugin_brings_the_libraries_that_it_needs(
    with_plugin: Callable[..., Path], tmp_path: Path
) -> None:
    oci.build([with_plugin()], tmp_path / "layout")
    image = Read(tmp_path / "layout")
    layers = image.layers()
    assert list(layers) == ["libraries", "plugin cuda", "runner", "programs", "weights", "contents"]
    names = {member.name for member in layers["libraries"]}
    # The last one is needed by the one that was asked for.
    assert {"usr/lib64/libc.so.6", "usr/lib64/libstdc++.so.6", "usr/lib64/libgcc_s.so.1"} <= names
    assert "usr/lib64/libcuda.so.1" not in names
    links = {member.name: member.linkname for member in layers["libraries"] if member.issym()}
    assert links == {"lib64": "usr/lib64", "usr/lib/x86_64-linux-gnu": "../lib64"}
    environment = dict(one.split("=", 1) for one in image.config["config"]["Env"])
    assert environment["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_libraries_are_complete(with_plugin: Callable[..., Path], tmp_path: Path) -> None:
    oci.build([with_plugin()], tmp_path / "layout")
    image = Read(tmp_path / "layout")
    with tarfile.open(fileobj=io.BytesIO(image.tar(image.manifest["layers"][0]))) as tar:
        files = {Path(one.name).name: tar.extractfile(one) for one in tar if one.isfile() and "/lib64/" in one.name}
        for file in files.values():
            assert file is not None
            dynamic: Any = ELFFile(file).get_section_by_name(".dynamic")
            assert {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")} <= set(files)


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg says whose a library is; it is not here")
def test_the_bill_says_whose_the_libraries_are_and_the_image_holds_the_licenses(
    with_plugin: Callable[..., Path], tmp_path: Path
) -> None:
    oci.build([with_plugin()], tmp_path / "layout")
    image = Read(tmp_path / "layout")
    bill = image.json(image.json(image.index["manifests"][1])["layers"][0])
    (libc,) = [package for package in bill["packages"] if package["name"] == "libc.so.6"]
    assert libc["licenseDeclared"] == "LGPL-2.1-or-later"
    assert libc["externalRefs"][0]["referenceLocator"].startswith("pkg:deb/")
    assert libc["versionInfo"] in libc["externalRefs"][0]["referenceLocator"].replace("%2B", "+")
    names = {member.name for member in image.layers()["libraries"]}
    assert {"usr/share/doc/libc6/copyright", "usr/share/doc/libstdc++6/copyright"} <= names


@needs("bwrap", "tar")
@pytest.mark.skipif(not confined(), reason="bubblewrap may not make namespaces here")
def test_a_program_finds_its_libraries_in_the_image(with_plugin: Callable[..., Path], tmp_path: Path) -> None:
    oci.build([with_plugin()], tmp_path / "layout", compression="none")
    image = Read(tmp_path / "layout")
    (tmp_path / "root").mkdir()
    for layer in image.manifest["layers"]:
        subprocess.run(["tar", "-x", "-C", tmp_path / "root"], input=image.tar(layer), check=True)
    command = [
        "bwrap",
        "--ro-bind",
        str(tmp_path / "root"),
        "/",
        "--unshare-all",
        "--clearenv",
        "/digits/plugins/runner",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_upon_a_base_there_are_no_libraries_of_this_machine(with_plugin: Callable[..., Path], tmp_path: Path) -> None:
    oci.build([with_plugin(host=["libmissing.so.1"])], tmp_path / "layout", on=f"{based(tmp_path / 'base')}:one")
    image = Read(tmp_path / "layout")
    titles = [one["comment"] for one in image.config["history"] if "comment" in one]
    assert titles == ["plugin cuda", "runner", "programs", "weights", "contents"]
    environment = dict(one.split("=", 1) for one in image.config["config"]["Env"])
    assert environment["LD_LIBRARY_PATH"] == "/opt/lib:/usr/local/nvidia/lib64"


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({"host": ["libmissing.so.1"]}, "'libmissing.so.1', which is not among this machine's libraries"),
        ({"host": ["../../etc/shadow"]}, "'../../etc/shadow', which is not among"),
        ({"glibc": "9.1"}, "needs glibc 9.1, and this machine has"),
    ],
    ids=str,
)
def test_what_this_machine_does_not_have_is_said(
    with_plugin: Callable[..., Path], tmp_path: Path, plugin: Any, problem: str
) -> None:
    (tmp_path / "output").mkdir()
    with pytest.raises(ModelError, match=problem) as caught:
        oci.build([with_plugin(**plugin)], tmp_path / "output" / "layout")
    assert "--base IMAGE" in str(caught.value)
    assert list((tmp_path / "output").iterdir()) == []


def test_libraries_of_the_driver_are_left_to_the_machine() -> None:
    with_driver = _libraries.collect(
        ["libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.580.1"], glibc=None
    )
    assert [library.name for library in with_driver] == sorted(_libraries.GLIBC)
