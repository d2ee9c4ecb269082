"""Images of archives: laid out by the specification, the same from the same, and only what changed is another blob."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from namedtensor import CheckpointError, InputError
from namedtensor.cli import main
from namedtensor.export import oci
from namedtensor.export.archive import read
from tests.export.oci.conftest import TARGETS, Read, confined, needs
from tests.export.unpack import unpack

SCAN = sorted((Path(__file__).parents[3] / "models" / "digits" / "scans").glob("*.png"))[0]


@pytest.fixture(scope="module")
def image(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Read:
    output = tmp_path_factory.mktemp("image") / "layout"
    oci.build([digits], output)
    return Read(output)


# What an image is


def test_layers_lie_in_the_order_of_how_often_they_change(image: Read) -> None:
    files = {title: [one.name for one in members if one.isfile()] for title, members in image.layers().items()}
    assert files == {
        "runner": ["digits/digits"],
        "programs": [
            "digits/programs/classify.mlirbc",
            *(f"digits/targets/{target.replace(':', '-')}/classify.ntx" for target in TARGETS),
        ],
        "weights": ["digits/weights/model.safetensors"],
        "contents": ["digits/bundle.json"],
    }


def test_everything_belongs_to_root_and_can_be_read_by_anybody(image: Read) -> None:
    members = [one for layer in image.layers().values() for one in layer]
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in members} == {(0, 0, "", "", 0)}
    assert {oct(one.mode) for one in members if one.isdir() or one.name == "digits/digits"} == {"0o755"}
    assert {oct(one.mode) for one in members if one.isfile() and one.name != "digits/digits"} == {"0o644"}
    assert [one.name for one in members if one.isdir()][:2] == ["data", "digits"]


def test_the_configuration_starts_the_runner_as_nobody(image: Read) -> None:
    assert image.config["config"]["User"] == "65532:65532"
    assert image.config["config"]["Entrypoint"] == ["/digits/digits"]
    assert image.config["config"]["WorkingDir"] == "/data"
    assert (image.config["os"], image.config["architecture"]) == ("linux", "amd64")
    assert "ExposedPorts" not in image.config["config"]
    assert "created" not in image.config


def test_labels_say_what_it_was_made_of(image: Read, digits: Path) -> None:
    labels = image.config["config"]["Labels"]
    assert labels == image.manifest["annotations"]
    assert labels["org.opencontainers.image.title"] == "digits"
    assert labels["namedtensor.targets"] == ",".join(TARGETS)
    assert labels["namedtensor.archive.digest"] == f"sha256:{hashlib.sha256(digits.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_layers_have_the_digests_that_the_configuration_lists(digits: Path, tmp_path: Path, compression: str) -> None:
    oci.build([digits], tmp_path / "layout", compression=compression)
    image = Read(tmp_path / "layout")
    found = [f"sha256:{hashlib.sha256(image.tar(layer)).hexdigest()}" for layer in image.manifest["layers"]]
    assert found == image.config["rootfs"]["diff_ids"]


def test_digits_is_an_image_of_less_than_two_megabytes(real: Path, tmp_path: Path) -> None:
    for compression, most in (("zstd", 1_500_000), ("gzip", 1_800_000)):
        (made,) = oci.build([real], tmp_path / compression, compression=compression).images
        layers = Read(tmp_path / compression).manifest["layers"]
        assert sum(layer["size"] for layer in layers) < made.bytes < most


# The same from the same, and little from little


@pytest.mark.parametrize("name", ["layout", "layout.tar"])
def test_building_again_gives_the_same_bytes(digits: Path, tmp_path: Path, name: str) -> None:
    for directory in ("first", "second"):
        (tmp_path / directory).mkdir()
        oci.build([digits], tmp_path / directory / name)
    first, second = (files(tmp_path / directory) for directory in ("first", "second"))
    assert first == second


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_time_comes_from_outside_or_not_at_all(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    oci.build([digits], tmp_path / "layout")
    image = Read(tmp_path / "layout")
    assert image.config["created"] == "2023-11-14T22:13:20Z"
    assert image.manifest["annotations"]["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="'yesterday', not a number of seconds"):
        oci.build([digits], tmp_path / "layout")


def by_title(image: Read) -> dict[str, str]:
    titles = [one["comment"] for one in image.config["history"]]
    return {title: layer["digest"] for title, layer in zip(titles, image.manifest["layers"], strict=True)}


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("weights/model.safetensors", "weights"),
        ("programs/classify.mlirbc", "programs"),
        ("targets/cpu-x86-64-v3/classify.ntx", "programs"),
        ("digits", "runner"),
    ],
)
def test_only_what_changed_is_another_layer(
    image: Read, changed: Callable[..., Path], tmp_path: Path, path: str, layer: str
) -> None:
    oci.build([changed("another", {path: b"something else"})], tmp_path / "layout")
    before, after = by_title(image), by_title(Read(tmp_path / "layout"))
    assert {title for title in before if before[title] != after[title]} == {layer, "contents"}


def test_large_weights_have_layers_of_their_own(
    changed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("namedtensor.export.oci._pack._LARGE", 1000)
    made = changed("parts", {"weights/a.safetensors": b"a" * 1000, "weights/b": b"b", "weights/c": b"c"})
    oci.build([made], tmp_path / "layout")
    titles = list(by_title(Read(tmp_path / "layout")))
    assert titles[2:5] == ["weights", "weights a.safetensors", "weights model.safetensors"]


# What others make of it


@needs("skopeo")
@pytest.mark.parametrize("name", ["layout", "layout.tar"])
def test_skopeo_inspects_and_copies_it(digits: Path, tmp_path: Path, name: str) -> None:
    oci.build([digits], tmp_path / name, tag="v1")
    transport = "oci-archive" if name.endswith(".tar") else "oci"
    found = json.loads(called("skopeo", "inspect", f"{transport}:{tmp_path / name}:v1"))
    assert found["Labels"]["namedtensor.model"] == "digits"
    called("skopeo", "copy", f"{transport}:{tmp_path / name}:v1", f"oci:{tmp_path / 'copy'}:v1")
    with oci.Layout(tmp_path / "copy") as copy, oci.Layout(tmp_path / name) as layout:
        assert copy.image("v1")["digest"] == layout.image("v1")["digest"] == found["Digest"]


@needs("skopeo", "umoci", "bwrap")
@pytest.mark.skipif(not confined(), reason="bubblewrap may not make namespaces here")
def test_unpacked_it_runs_with_nothing_else_and_answers_right(real: Path, tmp_path: Path) -> None:
    # This release of umoci reads only gzip.
    oci.build([real], tmp_path / "layout", compression="gzip")
    called("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout'}:latest", str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    process = json.loads((tmp_path / "bundle" / "config.json").read_text())["process"]
    assert process["args"] == ["/digits/digits"]
    shutil.copy(SCAN, tmp_path / "scan.png")
    confinement = ["--ro-bind", str(root), "/", "--ro-bind", str(tmp_path / "scan.png"), "/data/scan.png"]
    nobody = ["--unshare-all", "--uid", "65532", "--gid", "65532", "--clearenv", "--chdir", process["cwd"]]
    # The mount's place is made while the root can still be written.
    (root / "data" / "scan.png").touch()
    found = called("bwrap", *confinement, *nobody, *process["args"], "scan.png", "--json")
    assert json.loads(found)["images"][0]["labels"][0]["label"] == SCAN.name[0]


def called(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


# Several archives


def test_of_several_archives_there_is_an_index_with_the_tag(
    digits: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    other = changed("other", targets=[{"name": "cpu:native", "executables": {}}])
    report = oci.build([digits, other], tmp_path / "layout", tag="v2")
    layout = Read(tmp_path / "layout")
    assert layout.image["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert layout.image["annotations"] == {"org.opencontainers.image.ref.name": "v2"}
    listed = layout.manifest["manifests"]
    assert [one["annotations"]["namedtensor.targets"] for one in listed] == [",".join(TARGETS), "cpu:native"]
    assert [one["platform"] for one in listed] == [{"architecture": "amd64", "os": "linux"}] * 2
    assert [one["digest"] for one in listed] == [image.descriptor["digest"] for image in report.images]
    subjects = [layout.json(one)["subject"]["digest"] for one in layout.index["manifests"][1:]]
    assert subjects == [one["digest"] for one in listed for _ in range(2)]


def test_the_same_archive_twice_is_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two of the archives are the same"):
        oci.build([digits, digits], tmp_path / "layout")
    assert list(tmp_path.iterdir()) == []


# What is refused leaves nothing


def refused(archive: Path, directory: Path) -> str:
    output = directory / "output"
    output.mkdir()
    with pytest.raises(InputError) as caught:
        oci.build([archive], output / "layout")
    assert "\n" not in str(caught.value)
    assert list(output.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("name", ["usr", "lib64", "data", "proc"])
def test_a_model_named_as_the_system_is_refused(changed: Callable[..., Path], tmp_path: Path, name: str) -> None:
    assert "name of a directory of the system" in refused(changed("x", name=name), tmp_path)


def test_files_that_are_not_what_the_contents_say_are_refused(
    digits: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    listed = read(digits).manifest["files"]
    weights = "weights/model.safetensors"
    for number, (files, problem) in enumerate(
        [
            ({**listed, weights: {**listed[weights], "sha256": "0" * 64}}, "has another digest"),
            ({**listed, weights: {**listed[weights], "bytes": 1 << 50}}, "bytes, not"),
            ({path: file for path, file in listed.items() if path != weights}, "holds no file that"),
            ({**listed, "weights/more": listed[weights]}, "weights/more is missing"),
            ({path: file for path, file in listed.items() if path != "digits"}, "digits is not listed"),
            ({**listed, "../outside": listed[weights]}, "no path within an archive"),
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        assert problem in refused(changed(f"lies{number}", files=files), place)


def test_members_that_are_links_are_refused(tmp_path: Path, changed: Callable[..., Path]) -> None:
    with (
        zstandard.open(changed("x"), "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
        zstandard.open(tmp_path / "links.tar.zst", "wb") as out,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as linked,
    ):
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if member.name.endswith(".safetensors"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/shadow", 0
            linked.addfile(member, content)
    assert "neither a file nor a directory" in refused(tmp_path / "links.tar.zst", tmp_path)


def test_cut_and_damaged_archives_are_refused(digits: Path, tmp_path: Path) -> None:
    data = digits.read_bytes()
    for number, broken in enumerate([b"", data[:1000], data[: len(data) // 2], data[:5000] + bytes(50) + data[5050:]]):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "a.tar.zst").write_bytes(broken)
        assert "not an archive that can be read" in refused(place / "a.tar.zst", place)


# The command


def test_the_command_says_what_it_made(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "layout")
    assert main(["image", "build", str(digits), "-o", output]) == 0
    shown = capsys.readouterr().out
    assert "weights" in shown
    assert main(["image", "build", str(digits), "-o", output, "--json", "--tag", "v3", "--port", "8080"]) == 0
    document = json.loads(capsys.readouterr().out)
    image = Read(tmp_path / "layout")
    assert (document["tag"], document["digest"]) == ("v3", image.image["digest"])
    assert image.config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert [layer["digest"] for layer in document["images"][0]["layers"]] == list(by_title(image).values())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--tag", "a/b"], 2),
        (["--user", "root"], 2),
        (["--compression", "lz4"], 2),
        (["--base", "oci:missing"], 3),
        (["--base", "not a name"], 2),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_else(
    digits: Path, tmp_path: Path, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "build", str(digits), "-o", str(tmp_path / "layout"), *arguments]) == code
    assert capsys.readouterr().err.startswith("namedtensor: error:")
    assert list(tmp_path.iterdir()) == []


# Weights alone


def test_weights_become_an_image_to_mount(digits: Path, tmp_path: Path) -> None:
    file = unpack(digits, tmp_path) / "weights" / "model.safetensors"
    shutil.copy(file, tmp_path / "llama.safetensors")
    oci.build([tmp_path / "llama.safetensors"], tmp_path / "layout")
    image = Read(tmp_path / "layout")
    ((member,),) = image.layers().values()
    assert (member.name, member.size, oct(member.mode)) == ("model.safetensors", file.stat().st_size, "0o644")
    assert "Entrypoint" not in image.config["config"]


def test_what_is_no_file_of_weights_becomes_nothing(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"weights")
    with pytest.raises(CheckpointError):
        oci.build([tmp_path / "bad.safetensors"], tmp_path / "layout")
    assert main(["image", "build", str(tmp_path / "bad.safetensors"), str(digits), "-o", str(tmp_path / "layout")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]
