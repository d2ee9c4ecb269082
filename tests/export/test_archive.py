"""Archives: the same input gives the same bytes, `bundle.json` says what is there, and damaged ones are refused."""

import hashlib
import json
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors.numpy import load_file

import namedtensor as nt
from namedtensor import InputError, ModelError, zoo
from namedtensor.cli import main
from namedtensor.compilers import Progress, _plugins
from namedtensor.export import archive
from namedtensor.export.archive import _build, _weights, compress, read
from tests.export.unpack import unpack


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in: what is packed as the program is of no concern here, and the real one may not be built."""
    path = tmp_path_factory.mktemp("runner") / "runner"
    path.write_bytes(b"\x7fELF stands in for the program" * 64)
    return path


@pytest.fixture(autouse=True)
def _packed_runner(runner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNNER", "LEAN_RUNNER", "PLUGIN_RUNNER"):
        monkeypatch.setattr(_build, name, runner)


def digits() -> nt.Program:
    return zoo.find("digits").program()


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, runner: Path) -> Path:
    output = tmp_path_factory.mktemp("archive") / "digits.tar.zst"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_build, "LEAN_RUNNER", runner)
        archive.build(digits(), output, ["cpu:x86-64-v2", "cpu:x86-64-v3"])
    return output


@pytest.fixture
def root(packed: Path, tmp_path: Path) -> Path:
    return unpack(packed, tmp_path / "unpacked")


def manifest(root: Path) -> Any:
    return json.loads((root / "bundle.json").read_text())


# What is in it


def test_an_archive_has_the_layout_of_its_specification(root: Path) -> None:
    assert root.name == "digits"
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) == [
        "bundle.json",
        "digits",
        "programs/classify.mlirbc",
        "targets/cpu-x86-64-v2/classify.ntx",
        "targets/cpu-x86-64-v3/classify.ntx",
        "weights/model.safetensors",
    ]


def test_every_file_but_the_one_that_lists_them_has_its_size_and_digest(root: Path) -> None:
    found = {
        path.relative_to(root).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in root.rglob("*")
        if path.is_file() and path.name != "bundle.json"
    }
    assert manifest(root)["files"] == found


def test_only_the_program_can_be_executed_and_nothing_tells_who_built_it(packed: Path) -> None:
    with (
        open(packed, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        members = list(tar)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert {m.name for m in members if m.mode & 0o111 and not m.isdir()} == {"digits/digits"}
    assert [m.name for m in members[:2]] == ["digits", "digits/bundle.json"]


def test_arguments_stand_in_the_order_of_the_program(root: Path) -> None:
    ((variant,),) = [entry["variants"] for entry in manifest(root)["entries"]]
    assert [(a["kind"], a["name"]) for a in variant["arguments"]] == [
        ("weight", "coarse.bias"),
        ("weight", "coarse.weight"),
        ("weight", "fine.bias"),
        ("weight", "fine.weight"),
        ("weight", "out.bias"),
        ("weight", "out.weight"),
        ("input", "images"),
    ]
    assert variant["arguments"][-1]["axes"] == ["b", "h", "w", "c"]
    assert variant["arguments"][-1]["shape"] == [1, 8, 8, 1]
    assert [r["name"] for r in variant["results"]] == ["logits", "probabilities"]


def test_weights_are_the_models_own_and_lie_on_lines_of_64_bytes(root: Path) -> None:
    path = root / "weights" / "model.safetensors"
    stored = load_file(path)
    loaded: Any = nt.load(digits().model, progress=False).result()
    expected = {"fine.weight": loaded.fine.weight, "out.bias": loaded.out.bias}
    for name, tensor in expected.items():
        np.testing.assert_array_equal(stored[name], np.asarray(tensor.array))
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0


def test_the_task_is_plain_data(root: Path) -> None:
    task = manifest(root)["task"]
    assert (task["task"], task["top"], task["labels"]) == ("classify", 3, list("0123456789"))
    assert task["preprocess"]["interpolation"] == "box"


# The same input, the same bytes


def test_building_again_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    archive.build(
        digits(),
        tmp_path / "again.tar.zst",
        ["cpu:x86-64-v2", "cpu:x86-64-v3"],
    )
    assert (tmp_path / "again.tar.zst").read_bytes() == packed.read_bytes()


def test_times_and_modes_of_files_leave_no_trace(root: Path, packed: Path, tmp_path: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.touch()
    compress(root, tmp_path / "again.tar.zst")
    assert (tmp_path / "again.tar.zst").read_bytes() == packed.read_bytes()


def test_how_many_tensors_are_in_memory_at_a_time_leaves_no_trace(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_weights, "_TOGETHER", 1)
    archive.build(digits(), tmp_path / "again.tar.zst", ["cpu:x86-64-v2", "cpu:x86-64-v3"])
    assert (tmp_path / "again.tar.zst").read_bytes() == packed.read_bytes()


def test_every_long_step_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: dict[str, list[Progress]] = {}

    def on_progress(progress: Progress) -> None:
        seen.setdefault(progress.what, []).append(progress)

    archive.build(digits(), tmp_path / "a.tar.zst", ["cpu:x86-64-v3"], on_progress=on_progress)
    assert list(seen) == ["cpu:x86-64-v3", "weights", "compression"]
    for steps in seen.values():
        assert steps[-1].done == steps[-1].total > 0
        assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_weights_can_stay_outside(tmp_path: Path) -> None:
    outside = tmp_path / "digits.safetensors"
    report = archive.build(digits(), tmp_path / "a.tar.zst", ["cpu:x86-64-v3"], weights_outside=outside)
    assert not any(path.startswith("weights/") for path in report.files)
    weights = read(report.path, verify=True).manifest["weights"]
    assert weights["file"] is None
    assert weights["sha256"] == hashlib.sha256(outside.read_bytes()).hexdigest()


# What cannot be built leaves nothing


def refused(directory: Path, program: nt.Program, *targets: str) -> str:
    with pytest.raises((ModelError, InputError)) as caught:
        archive.build(program, directory / "a.tar.zst", targets)
    assert list(directory.iterdir()) == []
    return str(caught.value)


def test_an_unknown_instruction_level_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert "did you mean 'cpu:x86-64-v3'?" in refused(tmp_path, digits(), "cpu:x86-64-v33")


def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    program = digits()
    for name in ("../digits", "weights", "a b", ".hidden", ""):
        program.name = name
        assert "cannot name" in refused(tmp_path, program, "cpu:x86-64-v3")


def test_without_a_runner_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build, "LEAN_RUNNER", tmp_path / "missing")
    assert "scripts/build-runner" in refused(tmp_path, digits(), "cpu:x86-64-v3")


@pytest.mark.parametrize(
    ("model", "outside", "packed"),
    [("digits", False, "LEAN_RUNNER"), ("digits", True, "RUNNER"), ("shakespeare", False, "RUNNER")],
)
def test_the_smaller_runner_is_packed_where_it_does_all_that_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, outside: bool, packed: str
) -> None:
    for name in ("RUNNER", "LEAN_RUNNER"):
        (tmp_path / name).write_text(name)
        monkeypatch.setattr(_build, name, tmp_path / name)
    weights = tmp_path / "weights.safetensors" if outside else None
    archive.build(zoo.find(model).program(), tmp_path / "a.tar.zst", ["cpu:x86-64-v2"], weights_outside=weights)
    root = unpack(tmp_path / "a.tar.zst", tmp_path / "unpacked")
    assert (root / model).read_text() == packed


@pytest.mark.slow
def test_an_archive_for_an_accelerator_has_a_runner_that_can_load_plugins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _plugins.present("rocm") and os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip("the rocm compiler is not in the cache; NAMEDTENSOR_FETCH_COMPILERS=1 fetches it")
    path = tmp_path / "digits.tar.zst"
    assert main(["build", "digits", "--target", "rocm:mi300x", "--no-plugins", "-o", str(path)]) == 0
    root = unpack(path, tmp_path / "unpacked")
    assert (root / "plugins" / "runner").stat().st_mode & 0o111
    assert [path.name for path in (root / "plugins").iterdir()] == ["runner"]
    capsys.readouterr()
    assert main(["inspect", str(path), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "rocm: the plugin is outside: give it to the program (jax-rocm7-pjrt 0.11.2)" in shown
    assert "on no package registry" in shown
    monkeypatch.setattr(_build, "PLUGIN_RUNNER", tmp_path / "runner-glibc")
    assert main(["build", "digits", "--target", "rocm:mi300x", "--no-plugins", "-o", str(tmp_path / "b.tar.zst")]) == 1
    assert "runner-glibc of archives was not built: run scripts/build-runner" in capsys.readouterr().err
    assert not (tmp_path / "b.tar.zst").exists()


# Reading


def test_inspect_shows_files_and_targets(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(packed), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "digits: classify; classify" in shown
    assert "cpu:x86-64-v2: 1 executable, run by the archive's own program" in shown
    assert "Every file has the digest" in shown
    assert main(["inspect", str(packed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"]["name"] == "digits"


def repacked(root: Path, path: Path) -> Path:
    compress(root, path)
    return path


def test_a_file_that_was_changed_is_found(root: Path, tmp_path: Path) -> None:
    with open(root / "weights" / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    path = repacked(root, tmp_path / "a.tar.zst")
    read(path)
    with pytest.raises(InputError, match=r"weights/model\.safetensors has another digest"):
        read(path, verify=True)


def test_a_file_that_is_not_listed_is_found(root: Path, tmp_path: Path) -> None:
    (root / "assets").mkdir()
    (root / "assets" / "extra").write_text("?")
    with pytest.raises(InputError, match=r"assets.* holds no file that bundle.json lists"):
        read(repacked(root, tmp_path / "a.tar.zst"), verify=True)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (["version"], 2, "version 2"),
        (["name"], "other", "'other'"),
        (["targets"], [{"name": "cpu:x"}], "a target without"),
        (["plugins"], {"cuda": {"library": "plugins/cuda/x.so"}}, "a plugin without"),
        (["files", "../outside"], {"bytes": 1, "sha256": "0" * 64}, "no path within an archive"),
        (["files", "/etc/passwd"], {"bytes": 1, "sha256": "0" * 64}, "no path within an archive"),
        (["files", "digits"], {"bytes": -1, "sha256": "0" * 64}, "no size and digest"),
    ],
)
def test_a_bundle_that_lies_is_refused(root: Path, tmp_path: Path, path: list[str], value: Any, problem: str) -> None:
    bundle = manifest(root)
    place = bundle
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (root / "bundle.json").write_text(json.dumps(bundle))
    with pytest.raises(InputError, match=problem) as caught:
        read(repacked(root, tmp_path / "a.tar.zst"))
    assert "\n" not in str(caught.value)


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with (
        open(path, "wb") as file,
        zstandard.ZstdCompressor().stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for member in members:
            tar.addfile(member)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "second",
    [
        member("digits/../../outside"),
        member("/outside"),
        member("digits/bundle.json", tarfile.SYMTYPE, "/etc/passwd"),
        member("digits/bundle.json", tarfile.LNKTYPE, "digits/digits"),
        member("digits/bundle.json", tarfile.FIFOTYPE),
        member("digits/" + "long" * 60),
    ],
    ids=lambda m: f"{m.name[:24]} {m.type!r}",
)
def test_members_other_than_plain_files_are_refused(tmp_path: Path, second: tarfile.TarInfo) -> None:
    path = tar_of(tmp_path / "a.tar.zst", member("digits", tarfile.DIRTYPE), second)
    with pytest.raises(InputError):
        read(path)


def test_damaged_archives_give_one_line_or_their_contents(packed: Path, tmp_path: Path) -> None:
    original = packed.read_bytes()
    whole = read(packed)
    generator = random.Random(7)
    path = tmp_path / "a.tar.zst"
    for _ in range(300):
        data = bytearray(original)
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        for _ in range(generator.randrange(1, 4)):
            if data:
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            found = read(path, verify=True)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert found.manifest == whole.manifest
