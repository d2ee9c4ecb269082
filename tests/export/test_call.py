"""Archives of programs without a task at work: tensors in and out, as `namedtensor run` takes and gives them."""

from __future__ import annotations

import itertools
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from namedtensor import zoo
from namedtensor.cli import _call, main
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from tests.cli.conftest import MODEL
from tests.export.running import confined, refused, run, run_alone
from tests.export.unpack import unpack

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")

X = np.arange(8, dtype=np.float32).reshape(2, 4)
SHAPES = ((), (1,), (7,), (3, 4), (2, 3, 5), (60,), (8, 9), (2, 7, 9), (0, 3), (3, 0))
SHOWN = ("bool", "int32", "float32", "float16", "bfloat16")
KINDS = (*SHOWN, "int8", "uint8", "int16", "uint16", "uint32")

# An entry point for each type that gives back what it gets, in arrays of all shapes.
SAME = f"""\
import namedtensor as nt

WEIGHTS = "weights.safetensors"
SHAPES = {SHAPES!r}


class Nothing(nt.Module):
    w: nt.Tensor


def same(model, arrays):
    return arrays


def program(ckpt):
    def entry(kind):
        arrays = {{
            f"x{{i}}": nt.spec(" ".join("abc"[: len(shape)]), kind, **dict(zip("abc", shape)))
            for i, shape in enumerate(SHAPES)
        }}
        return nt.entry(same, arrays=arrays)

    return nt.Program(Nothing(ckpt.weight("w", "d")), {{kind: entry(kind) for kind in {KINDS!r}}}, name="same")
"""


def dtype(kind: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model files, with their weights beside them."""
    directory = tmp_path_factory.mktemp("models")
    weights = {f"layers.{i}.w": np.eye(4, dtype=np.float32) * (i + 1) for i in range(3)}
    save_file({**weights, "w": np.zeros(1, np.float32)}, directory / "weights.safetensors")
    (directory / "stack.py").write_text(MODEL)
    (directory / "same.py").write_text(SAME)
    return directory


@pytest.fixture(scope="module")
def stack(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a model with two entry points: one of two sizes, and one with state."""
    file = zoo.find(directory / "stack.py")
    archive.build(file.program(options=file.parse(["two_entries=yes"])), directory / "stack.tar.zst", ["cpu:x86-64-v2"])
    return unpack(directory / "stack.tar.zst", tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def same(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive.build(zoo.find(directory / "same.py").program(), directory / "same.tar.zst", ["cpu:x86-64-v2"])
    return unpack(directory / "same.tar.zst", tmp_path_factory.mktemp("root"))


def expected(directory: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `namedtensor run` prints."""
    capsys.readouterr()
    assert main(["run", str(directory / "stack.py"), "--set", "two_entries=yes", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(not confined(), reason="bubblewrap is not here, or may not make namespaces")
def test_it_runs_where_there_is_nothing_but_the_archive(stack: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    found = run_alone(stack, tmp_path, "--entry", "forward", "--input", "x=/x.npy", "--output", "/")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "y (b=2, d=4) float32\nwrote /y.npy (160 B)\n"
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X * 2)


def test_people_and_machines_see_what_namedtensor_run_prints(
    stack: Path, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(X / 3))
    for arguments in (
        ("--entry", "forward", "--input", f"x={tmp_path / 'x.npy'}"),
        ("--entry", "step", "--input", f"x={X.tolist()}", "--input", "state.total=[[1,2,3,NaN],[5,6,7,-Infinity]]"),
    ):
        assert run(stack, *arguments).stdout == expected(directory, capsys, *arguments)
        wanted = json.loads(expected(directory, capsys, *arguments, "--json"))
        del wanted["timing"]
        assert json.loads(run(stack, *arguments, "--json").stdout) == wanted


def test_a_bucket_is_chosen_by_the_sizes_of_the_inputs(stack: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((8, 4), np.float32))
    arguments = ("--entry", "forward", "--json", "--input", f"x={tmp_path / 'x.npy'}")
    assert json.loads(run(stack, *arguments).stdout)["outputs"]["y"]["shape"] == [8, 4]
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    assert "input 'x' has shape (3, 4), not (b=2 or 8, d=4)" in refused(stack, *arguments, code=3)


def test_a_program_with_one_entry_point_needs_no_name(directory: Path, tmp_path: Path) -> None:
    archive.build(zoo.find(directory / "stack.py").program(), tmp_path / "stack.tar.zst", ["cpu:x86-64-v2"])
    found = run(unpack(tmp_path / "stack.tar.zst", tmp_path), "--input", f"x={X.tolist()}", "--json")
    assert json.loads(found.stdout)["outputs"]["y"]["values"] == (X * 2).tolist()


def arrays(kind: str, seed: int) -> dict[str, Any]:
    """Values of one type in all shapes: some of a size, some of all sizes, some that are no numbers."""
    generator = np.random.default_rng(seed)
    found = {}
    values: Any
    for i, shape in enumerate(SHAPES):
        if kind == "bool":
            values = generator.random(shape) < 0.5
        elif dtype(kind).kind in "iu":
            limits = np.iinfo(dtype(kind))
            small = max(limits.min, -99), min(limits.max, 99)
            low, high = (limits.min, limits.max) if seed % 2 else small
            values = generator.integers(low, high, shape, endpoint=True)
        else:
            choice = (seed + i) % 6
            values = generator.standard_normal(shape)
            if choice == 1:
                values = values * 10.0 ** generator.integers(-8, 5, shape)
            elif choice == 2:
                values = np.round(values * 9)
            elif choice == 3:
                values = np.where(generator.random(shape) < 0.3, [np.nan, np.inf, -np.inf][seed % 3], values)
            elif choice == 4:
                values = np.round(values, 2) * (generator.random(shape) < 0.5)
            elif choice == 5:
                values = values * 400 + 1e4
        with np.errstate(over="ignore"):
            found[f"arrays.x{i}"] = np.asarray(values).astype(dtype(kind))
    return found


@pytest.mark.parametrize("kind", SHOWN)
def test_values_look_as_numpy_shows_them(same: Path, tmp_path: Path, kind: str) -> None:
    for seed in range(12):
        given = arrays(kind, seed)
        save_file(given, tmp_path / "in.safetensors")
        found = run(same, "--entry", kind, "--input", tmp_path / "in.safetensors")
        assert found.returncode == 0, found.stderr
        blocks = found.stdout.split(f"{kind}\n")[1:]
        for value, block in zip(given.values(), blocks, strict=True):
            shown = "\n".join(line for line in block.splitlines() if not line.startswith("x"))
            assert shown == _call._values(value).rstrip("\n"), repr(value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_goes_in_and_out_of_every_format(same: Path, tmp_path: Path, kind: str) -> None:
    given = arrays(kind, 3)
    widened = {name: value.astype(np.float32) if kind == "bfloat16" else value for name, value in given.items()}
    np.savez(tmp_path / "in.npz", **given)
    np.savez_compressed(tmp_path / "small.npz", **given)
    save_file(given, tmp_path / "in.safetensors")
    for name, value in given.items():
        np.save(tmp_path / f"{name}.npy", np.asarray(value, order="F"))
        swapped = value if kind == "bfloat16" else value.astype(value.dtype.newbyteorder(">"))
        np.save(tmp_path / f"big {name}.npy", swapped)
    files = (tmp_path / name for name in ("in.npz", "small.npz", "in.safetensors"))
    sources = [["--input", str(file)] for file in files]
    for prefix in ("", "big "):
        single = (("--input", f"{name}={tmp_path / f'{prefix}{name}.npy'}") for name in given)
        sources.append([*itertools.chain(*single)])
    for inputs in sources:
        for output in (tmp_path, tmp_path / "out.npz", tmp_path / "out.safetensors"):
            found = run(same, "--entry", kind, *inputs, "--output", output)
            assert (found.returncode, found.stderr) == (0, "")
            if output == tmp_path:
                read = {name: np.load(tmp_path / f"{name.removeprefix('arrays.')}.npy") for name in given}
            else:
                loaded = load_file(output) if output.suffix == ".safetensors" else dict(np.load(output))
                read = {f"arrays.{name}": value for name, value in loaded.items()}
            for name, value in (given if output.suffix == ".safetensors" else widened).items():
                assert read[name].dtype == value.dtype
                assert read[name].shape == value.shape
                assert read[name].tobytes() == value.tobytes()


def test_npy_files_are_numpys_own_to_the_byte(same: Path, tmp_path: Path) -> None:
    given = arrays("float32", 0)
    save_file(given, tmp_path / "in.safetensors")
    assert run(same, "--entry", "float32", "--input", tmp_path / "in.safetensors", "--output", tmp_path).returncode == 0
    for name, value in given.items():
        np.save(tmp_path / "wanted.npy", value)
        found = (tmp_path / f"{name.removeprefix('arrays.')}.npy").read_bytes()
        assert found == (tmp_path / "wanted.npy").read_bytes()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("int8", "128", "holds 128 to 128, more than int8 can"),
        ("uint8", "-1", "holds -1 to -1, more than uint8 can"),
        ("int32", "1.5", "holds float64 values, which do not become int32"),
        ("int32", "true", "holds bool values, which do not become int32"),
        ("float32", "true", "holds bool values, which do not become float32"),
        ("bool", "1", "holds int64 values, which do not become bool"),
        ("float32", "[1]", "has 1 axes, not 0"),
        ("float32", "null", "is not an array of numbers"),
        ("float32", '"1"', "is not an array of numbers"),
        ("int32", "9" * 40, "is not an array of numbers"),
    ],
)
def test_values_that_do_not_fit_the_type_are_refused(
    same: Path, tmp_path: Path, kind: str, value: str, message: str
) -> None:
    given = arrays(kind, 0)
    del given["arrays.x0"]
    save_file(given, tmp_path / "in.safetensors")
    arguments = ("--entry", kind, "--input", tmp_path / "in.safetensors", "--input", f"arrays.x0={value}")
    assert f"{kind}: input 'arrays.x0' {message}" in refused(same, *arguments, code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "forward needs --input x=..., (b=2, d=4) float32"),
        (["a.png"], 2, "stack takes tensors, not arguments: write --input NAME=a.png"),
        (["--input", "x=nothing"], 2, "give a file (.npy, .npz, .safetensors), a number or a list in brackets"),
        (["--input", "x=[1,"], 2, "give a file (.npy, .npz, .safetensors), a number or a list in brackets"),
        (["--input", "z=1"], 2, "there is no input 'z' and no such file: there are x"),
        (["--input", "x=1", "--input", "x=2"], 2, "input 'x' is given twice"),
        (["--input", "x=missing.npy"], 3, "missing.npy: there is no such file"),
        (["--input", "x=/tmp/../etc/.npy"], 3, "arrays are read from .npy, .npz, .safetensors files"),
        (["--input", "x=1"], 3, "forward: input 'x' has 0 axes, not 2"),
        (["--input", "x=[[1],[2,3]]"], 3, "forward: input 'x' is not an array of numbers"),
        (["--input", "x=[[1,2],[3,4]]"], 3, "forward: input 'x' has other sizes than the entry point"),
        (["--input", "x=1", "--output", "nowhere/y.npz"], 2, "there is no directory nowhere"),
        (["--input", "x=1", "--output", "nowhere"], 2, "neither a directory that exists"),
        (["--inptu", "x=1"], 2, "--inptu"),
    ],
)
def test_what_is_wrong_stands_in_one_line(stack: Path, arguments: list[str], code: int, message: str) -> None:
    assert message in refused(stack, "--entry", "forward", *arguments, code=code)


def test_the_entry_point_must_be_one_of_the_programs(stack: Path) -> None:
    assert "--entry forward or step" in refused(stack, "--input", "x=1", code=2)
    assert "no entry point 'forwards': it has forward, step" in refused(stack, "--entry", "forwards", code=2)


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def tensors(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(shape: list[int], start: int, end: int, kind: str = "F32", data: bytes = b"") -> bytes:
    return tensors({"x": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}, data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "ends early"),
        ("x.npy", b"\x93NUMPY\x01\x00\xff\xff{", "not a .npy file"),
        ("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"), "ends early"),
        ("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }"), "ends early"),
        ("x.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 4), }") + bytes(64), "no numbers"),
        ("x.npy", npy("{'descr': '<c8', 'fortran_order': False, 'shape': (2, 4), }") + bytes(64), "no numbers"),
        ("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5), }") + bytes(64), "has shape (2, 5)"),
        ("x.npz", b"PK\x03\x04", "not a .npz file"),
        ("x.npz", b"", "not a .npz file"),
        ("x.safetensors", b"\xff" * 16, "not a .safetensors file"),
        ("x.safetensors", b"\x08" + bytes(7) + b"[[[[[[[[", "not a .safetensors file"),
        ("x.safetensors", one([2, 4], 0, 99), "not a .safetensors file"),
        ("x.safetensors", one([2, 4], 9, 3), "not a .safetensors file"),
        ("x.safetensors", one([2, 4], 0, 32), "lies where it cannot"),
        ("x.safetensors", one([1 << 62, 4], 0, 0), "overflow"),
        ("x.safetensors", one([1], 0, 1, "F8_E4M3", b"1"), "F8_E4M3"),
        ("x.safetensors", tensors({}, b"1"), "longer than its tensors"),
    ],
)
def test_hostile_files_are_refused(stack: Path, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for given in (f"x={tmp_path / name}", tmp_path / name) if name != "x.npy" else (f"x={tmp_path / name}",):
        assert message in refused(stack, "--entry", "forward", "--input", given, code=3)


def test_damaged_files_never_end_in_more_than_a_line(stack: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=X)
    np.save(tmp_path / "x.npy", X)
    save_file({"x": X}, tmp_path / "x.safetensors")
    generator = np.random.default_rng(7)
    codes = set()
    for name in ("x.npz", "x.npy", "x.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(60):
            broken = bytearray(whole[: generator.integers(1, len(whole)) if generator.random() < 0.3 else len(whole)])
            for _ in range(generator.integers(1, 4)):
                broken[generator.integers(0, len(broken))] = generator.integers(0, 256)
            (tmp_path / name).write_bytes(broken)
            found = run(stack, "--entry", "forward", "--input", f"x={tmp_path / name}")
            codes.add(found.returncode)
            assert found.returncode in (0, 3), found.stderr
            assert found.returncode == 0 or found.stderr.count("\n") == 1
            assert "fault" not in found.stderr
    assert codes == {0, 3}


def test_objects_in_array_files_are_refused(stack: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    assert "not a .npz file" in refused(stack, "--entry", "forward", "--input", tmp_path / "x.npz", code=3)


def test_an_output_that_cannot_be_written_leaves_nothing(stack: Path, tmp_path: Path) -> None:
    arguments = ("--entry", "forward", "--input", f"x={X.tolist()}", "--output")
    (tmp_path / "y.npy").mkdir()
    assert "cannot be written" in refused(stack, *arguments, tmp_path, code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["y.npy"]
    (tmp_path / "y.npz").mkdir()
    assert "that is a directory" in refused(stack, *arguments, tmp_path / "y.npz", code=2)


def test_a_results_name_leads_nowhere_else(stack: Path, tmp_path: Path) -> None:
    program = Path(shutil.copytree(stack, tmp_path / "stack"))
    text = (program / "bundle.json").read_text()
    assert '"name": "y"' in text
    (program / "bundle.json").write_text(text.replace('"name": "y"', '"name": "../y"'))
    (tmp_path / "out").mkdir()
    arguments = ("--entry", "forward", "--input", f"x={X.tolist()}", "--output", tmp_path / "out")
    assert "none for a file" in refused(program, *arguments, code=1)
    assert not (tmp_path / "y.npy").exists()
