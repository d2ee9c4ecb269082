"""`run` on a program that declares no task: tensors in, tensors out. Also how any model is found and set up."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from namedtensor.cli import _arrays
from namedtensor.lowering import Program
from tests.cli.conftest import Cli

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def test_prints_the_outputs_with_their_axes(cli: Cli, model: Path, x: Path) -> None:
    result = cli("run", model, "--input", f"x={x}")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[0] == "y (b=2, d=4) float32"
    assert result.out.splitlines()[2] == "   [ 8., 10., 12., 14.]]"


def test_json_holds_every_number_and_nothing_else_is_printed(cli: Cli, model: Path, x: Path) -> None:
    model.write_text("print('loading')\n" + model.read_text())
    result = cli("run", model, "--json", "--input", f"x={x}", "--set", "layers=3")
    assert result.code == 0
    assert result.json["model"] == "stack"
    assert result.json["task"] == "call"
    assert result.json["outputs"]["y"] == {
        "axes": ["b", "d"],
        "shape": [2, 4],
        "dtype": "float32",
        "values": (X * 6).tolist(),
    }


def test_numbers_that_json_lacks_are_strings(cli: Cli, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.where(X == 3, np.nan, np.where(X == 1, np.inf, -np.inf)).astype(np.float32))
    values = cli("run", model, "--json", "--set", "layers=0", "--input", f"x={tmp_path / 'x.npy'}").json["outputs"]["y"]
    assert values["values"][0] == ["-Infinity", "Infinity", "-Infinity", "NaN"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_of_several_arrays_gives_inputs_by_name_and_takes_outputs(
    cli: Cli, model: Path, tmp_path: Path, suffix: str
) -> None:
    given, wanted = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    np.savez(given, x=X) if suffix == ".npz" else save_file({"x": X}, given)
    result = cli("run", model, "--input", given, "--output", wanted)
    assert result.code == 0
    assert f"wrote {wanted}" in result.out
    found = np.load(wanted) if suffix == ".npz" else load_file(wanted)
    np.testing.assert_array_equal(found["y"], X * 2)


def test_an_output_directory_gets_a_file_for_each_tensor(cli: Cli, model: Path, x: Path, tmp_path: Path) -> None:
    assert cli("run", model, "--input", f"x={x}", "--output", tmp_path).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X * 2)


def test_lists_are_inputs_and_take_the_type_of_the_spec(cli: Cli, model: Path) -> None:
    result = cli("run", model, "--json", "--input", f"x={json.dumps(X.astype(int).tolist())}")
    assert result.json["outputs"]["y"]["values"] == (X * 2).tolist()


def test_bfloat16_survives_safetensors_and_npy(cli: Cli, model: Path, tmp_path: Path) -> None:
    narrow = X.astype(ml_dtypes.bfloat16)
    save_file({"x": narrow}, tmp_path / "x.safetensors")
    out = tmp_path / "y.safetensors"
    run = ("run", model, "--set", "dtype=bfloat16", "--output")
    assert cli(*run, out, "--input", f"x={tmp_path / 'x.safetensors'}").code == 0
    assert load_file(out)["y"].dtype == ml_dtypes.bfloat16
    np.save(tmp_path / "x.npy", narrow)
    assert cli(*run, tmp_path, "--input", f"x={tmp_path / 'x.npy'}").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X * 2)


def test_an_entry_point_and_the_leaves_of_a_tree(cli: Cli, model: Path, x: Path) -> None:
    run = ("run", model, "--set", "two_entries=yes", "--json", "--input", f"x={x}")
    result = cli(*run, "--entry", "step", "--input", f"state.total={x}")
    assert result.json["outputs"]["total"]["values"] == (X * 3).tolist()
    refused = cli(*run)
    assert refused.code == 2
    assert "--entry forward or step" in refused.err


def test_a_bucket_is_chosen_by_the_size_of_the_input(cli: Cli, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((8, 4), np.float32))
    run = ("run", model, "--set", "two_entries=yes", "--json", "--entry", "forward", "--input", f"x={tmp_path}/x.npy")
    assert cli(*run).json["outputs"]["y"]["shape"] == [8, 4]
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    refused = cli(*run)
    assert refused.code == 3
    assert refused.err == f"namedtensor: error: {tmp_path}/x.npy: input 'x' has shape (3, 4), not (b=2 or 8, d=4)\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "forward needs --input x=..., (b=2, d=4) float32"),
        (["a.png"], 2, "stack takes tensors, not arguments: write --input NAME=a.png"),
        (["--input", "x=nothing"], 2, "give a file (.npy, .npz, .safetensors), a number or a list in brackets"),
        (["--input", "z=1"], 2, "there is no input 'z' and no such file: did you mean 'x'?"),
        (["--input", "x=1", "--input", "x=2"], 2, "input 'x' is given twice"),
        (["--input", "x=missing.npy"], 3, "missing.npy: there is no such file"),
        (["--input", "x=1"], 3, "forward: input 'x' has 0 axes, not 2"),
        (["--input", "x=[[1],[2,3]]"], 3, "forward: input 'x' is not an array of numbers"),
        (["--input", "x=[[1,2],[3,4]]"], 3, "forward: input 'x' has other sizes than the entry point"),
        (["--input", "x=1", "--output", "nowhere/y.npz"], 2, "there is no directory nowhere"),
        (["--input", "x=1", "--output", "nowhere"], 2, "neither a directory that exists"),
        (["--entry", "forwards"], 2, "stack has no entry point 'forwards': did you mean 'forward'?"),
        (["--top", "3"], 2, "stack does not take --top: its task is call, which takes --entry, --input, --output"),
        (["--inptu", "x=1"], 2, "there is no option --inptu"),
        (["--set", "layer=1"], 2, "stack has no option 'layer'; it has layers=2 (a whole number)"),
        (["--set", "layers=many"], 2, "option layers: 'many' is not a whole number"),
        (["--set", "layers"], 2, "'layers' sets nothing; write option=value"),
        (["--set", "layers=1", "--set", "layers=2"], 2, "option layers is set twice"),
        (["--weights", "missing"], 3, "missing: no such file or directory"),
        (["--set", "layers=4"], 3, "the checkpoint has no weight 'layers.3.w'"),
    ],
)
def test_what_is_wrong_stands_in_one_line(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(model.parent)
    result = cli("run", "stack.py", *arguments)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("namedtensor: error: ")
    assert message in result.err.splitlines()[0]
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "not a .npy file"),
        ("x.npy", b"\x93NUMPY\x01\x00\xff\xff{", "not a .npy file"),
        ("x.npz", b"PK\x03\x04", "not a .npz file"),
        ("x.safetensors", b"\xff" * 16, "x.safetensors"),
    ],
)
def test_damaged_arrays_are_refused(cli: Cli, model: Path, name: str, content: bytes, message: str) -> None:
    path = model.parent / name
    path.write_bytes(content)
    result = cli("run", model, "--input", f"x={path}")
    assert result.code == 3
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_an_array_file_that_promises_more_than_it_has_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"not a \.npy file that can be read"):
        _arrays.stored(path)


def test_objects_in_array_files_are_refused(cli: Cli, model: Path) -> None:
    np.savez(model.parent / "x.npz", x=np.array([{}], dtype=object))
    result = cli("run", model, "--input", model.parent / "x.npz")
    assert result.code == 3
    assert "not a .npz file" in result.err


def test_outputs_are_written_whole_or_not_at_all(
    cli: Cli, model: Path, x: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    before = sorted(model.parent.iterdir())
    result = cli("run", model, "--input", f"x={x}", "--output", model.parent / "y.npz")
    assert result.code == 1
    assert "No space left on device" in result.err
    assert sorted(p for p in model.parent.iterdir() if p.name != "__pycache__") == before


def test_inputs_are_checked_before_weights_are_read(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr("namedtensor.lowering.Program.start", start)
    assert cli("run", model, "--input", "x=[[1,2],[3,4]]").code == 3


def test_only_the_variant_that_fits_is_compiled(
    cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    start = Program.start

    def recorded(self: Program, **arguments: object) -> object:
        asked.append(arguments["only"])
        return start(self, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Program, "start", recorded)
    np.save(tmp_path / "x.npy", np.ones((8, 4), np.float32))
    run = ("run", model, "--set", "two_entries=yes", "--entry", "forward", "--input", f"x={tmp_path}/x.npy")
    assert cli(*run).code == 0
    assert asked == [("forward.b8",)]
