"""Compiling and packing as two steps: the same archive, and no executable of another program."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from namedtensor import InputError, compilers, zoo
from namedtensor.cli import main
from namedtensor.compilers import _plugins
from namedtensor.export import archive
from namedtensor.export.archive import _build

TARGETS = ["--target", "cpu:x86-64-v2", "--target", "cpu:x86-64-v3"]


@pytest.fixture(autouse=True)
def _packed_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: what is packed as the program is of no concern here, and the real one may not be built."""
    path = tmp_path / "runner"
    path.write_bytes(b"\x7fELF stands in for the program" * 64)
    for name in ("RUNNER", "LEAN_RUNNER"):
        monkeypatch.setattr(_build, name, path)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compile` writes from the header of the digits' checkpoint, where no weight is."""
    root = tmp_path_factory.mktemp("compiled")
    assert main(["header", str(zoo.find("digits").weights), "-o", str(root / "header")]) == 0
    assert main(["compile", "digits", "--weights", str(root / "header"), *TARGETS, "-o", str(root / "out")]) == 0
    return root / "out"


@pytest.fixture
def compiled(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "compiled"))


@pytest.fixture
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was compiled")

    monkeypatch.setattr(compilers, "compile_for", refuse)


def test_every_target_has_its_executables_and_their_description(compiled: Path) -> None:
    found = sorted(path.relative_to(compiled).as_posix() for path in compiled.rglob("*") if path.is_file())
    assert found == [
        f"cpu-x86-64-{level}/{name}" for level in ("v2", "v3") for name in ("classify.ntx", "compiled.json")
    ]


def test_the_same_program_gives_the_same_files(once: Path, tmp_path: Path) -> None:
    assert main(["compile", "digits", *TARGETS, "-o", str(tmp_path / "again")]) == 0
    for path in once.rglob("*.*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(once)).read_bytes() == path.read_bytes(), path.name


def test_an_archive_in_two_steps_is_the_archive_in_one(tmp_path: Path, once: Path) -> None:
    archive.build(zoo.find("digits").program(), tmp_path / "one.tar.zst", TARGETS[1::2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilers, "compile_for", lambda *_, **__: pytest.fail("something was compiled"))
        command = ["build", "digits", *TARGETS, "--compiled", str(once), "-o", str(tmp_path / "two.tar.zst")]
        assert main(command) == 0
    assert (tmp_path / "two.tar.zst").read_bytes() == (tmp_path / "one.tar.zst").read_bytes()


@pytest.mark.usefixtures("nothing_compiles")
def test_other_weights_of_the_same_shapes_need_no_compiling(once: Path, tmp_path: Path) -> None:
    weights = {name: np.zeros_like(value) for name, value in load_file(str(zoo.find("digits").weights)).items()}
    save_file(weights, tmp_path / "zeros.safetensors")
    program = zoo.find("digits").program(tmp_path / "zeros.safetensors")
    report = archive.build(program, tmp_path / "zeros.tar.zst", TARGETS[1::2], compiled=[once])
    assert report.files["targets/cpu-x86-64-v2/classify.ntx"] > 0


@pytest.mark.usefixtures("nothing_compiles")
def test_targets_may_lie_in_directories_of_their_own(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    apart = Path(shutil.move(compiled / "cpu-x86-64-v3", tmp_path / "elsewhere"))
    program = zoo.find("digits").program()
    archive.build(program, tmp_path / "a.tar.zst", TARGETS[1::2], compiled=[compiled, apart])


MODEL = """
import namedtensor as nt
from namedtensor.models.digits.model import Digits, classify, program as digits

def program(ckpt):
    ours = digits(ckpt)
    images = nt.spec("b h w c", b={batch}, h=8, w=8, c=1)
    return nt.Program(ours.model, {{"classify": nt.entry(classify, images=images)}}, task=ours.task, name="digits")
"""


def refused(compiled: Path, tmp_path: Path, program: object = None, target: str = "cpu:x86-64-v2") -> str:
    program = zoo.find("digits").program() if program is None else program
    with pytest.raises(InputError) as caught:
        archive.build(program, tmp_path / "a.tar.zst", [target], compiled=[compiled])  # type: ignore[arg-type]
    assert not (tmp_path / "a.tar.zst").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_executables_of_another_program_are_refused(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(batch=2))
    other = zoo.find(tmp_path / "model.py").program(zoo.find("digits").weights)
    assert "of another program; compile the model as it is now" in refused(compiled, tmp_path, other)


def test_what_was_not_compiled_is_named(compiled: Path, tmp_path: Path) -> None:
    problem = refused(compiled, tmp_path, target="cpu:x86-64-v4")
    assert problem.startswith("cpu:x86-64-v4 was not compiled: the given directories hold cpu:x86-64-v2, cpu:x86-64-v3")
    (tmp_path / "empty").mkdir()
    assert "nothing that `namedtensor compile -o` wrote" in refused(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "not version 1"),
        ({"compiler": {"jaxlib": "0.1"}}, "another release compiled it"),
        ({"target": None}, "names no target"),
        ({"variants": []}, "names no target or no variants"),
        ({"variants": {}}, "it has no classify"),
        ({"variants": {"classify": {"file": "classify.ntx"}}}, "lacks one of"),
        ({"variants": {"classify": {"file": "../x", "sha256": "", "program": ""}}}, "not a file beside it"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(compiled: Path, tmp_path: Path, change, problem) -> None:
    path = compiled / "cpu-x86-64-v2" / "compiled.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert problem in refused(compiled, tmp_path)


def test_a_changed_executable_is_refused(compiled: Path, tmp_path: Path) -> None:
    with open(compiled / "cpu-x86-64-v2" / "classify.ntx", "ab") as file:
        file.write(b"\0")
    assert "not the file that was compiled" in refused(compiled, tmp_path)
    (compiled / "cpu-x86-64-v2" / "compiled.json").write_text("{")
    assert "not JSON" in refused(compiled, tmp_path)


@pytest.mark.slow
def test_executables_for_a_chip_are_packed_as_they_were_compiled(tmp_path: Path, monkeypatch) -> None:
    if not _plugins.present("cuda"):
        pytest.skip("the cuda compiler is not in the cache")
    assert main(["compile", "digits", "--target", "cuda:h100", "-o", str(tmp_path / "out")]) == 0
    monkeypatch.setattr("namedtensor.compilers.compile_for", lambda *_, **__: pytest.fail("something was compiled"))
    program = zoo.find("digits").program()
    chips = [compilers.target("cuda:h100")]
    (found,) = archive.Prepared([tmp_path / "out"])(program, chips, lambda _: None)["cuda:h100"]
    assert found.serialized == (tmp_path / "out" / "cuda-h100" / "classify.executable").read_bytes()
    assert "ENTRY" in found.hlo
    assert found.argument_bytes > 29_000 * 4
    assert found.cost.flops > 600_000
