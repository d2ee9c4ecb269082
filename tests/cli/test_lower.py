"""`lower`: StableHLO files, one for each entry point and bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from tests.cli.conftest import Cli


def test_text_parses_as_stablehlo(cli: Cli, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "stack.mlir"
    result = cli("lower", model, "-o", file)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"forward: {file} (")
    with mlir.make_ir_context():
        module = ir.Module.parse(file.read_text())
    assert module.operation.verify()
    assert "stablehlo.dot_general" in file.read_text()


def test_bytecode_is_a_portable_artifact(cli: Cli, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "stack.mlirbc"
    assert cli("lower", model, "-o", file).code == 0
    with mlir.make_ir_context() as context:
        module = stablehlo.deserialize_portable_artifact(context, file.read_bytes())
    assert "stablehlo.dot_general" in str(module)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_every_platform_without_having_it(cli: Cli, model: Path, tmp_path: Path, platform: str) -> None:
    document = cli("lower", model, "-o", tmp_path / "a.mlir", "--platform", platform, "--json").json
    assert [row["platform"] for row in document["written"]] == [platform]


def test_several_entry_points_and_buckets_get_files_of_their_own(cli: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = ("lower", model, "--set", "two_entries=yes", "-o", out / "m.mlir")
    assert cli(*run).code == 0
    assert sorted(file.name for file in out.iterdir()) == ["m.forward.b2.mlir", "m.forward.b8.mlir", "m.step.mlir"]
    written = cli(*run, "--entry", "step", "--json").json["written"]
    assert [Path(row["file"]).name for row in written] == ["m.mlir"]
    assert written[0]["bytes"] == (out / "m.mlir").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "nowhere/a.mlir"], "-o nowhere/a.mlir: there is no directory nowhere"),
        (["-o", "a.txt"], "-o a.txt: the name must end in .mlir (text) or .mlirbc (portable bytecode)"),
        (["-o", "folder.mlir"], "-o folder.mlir: that is a directory"),
        (["-o", "a.mlir", "--entry", "forwards"], "stack has no entry point 'forwards'; it has forward"),
        (["-o", "a.mlir", "--platform", "metal"], "'metal' is not one of"),
    ],
)
def test_what_is_wrong_stands_in_one_line(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(model.parent)
    (model.parent / "folder.mlir").mkdir()
    result = cli("lower", "stack.py", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err.splitlines()[0]
    assert not (model.parent / "a.mlir").exists()


def test_a_failing_write_leaves_nothing(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (model.parent / "a.mlir").write_text("before")
    monkeypatch.setattr(Path, "write_bytes", full)
    result = cli("lower", model, "-o", model.parent / "a.mlir")
    assert result.code == 1
    assert "No space left on device" in result.err
    assert (model.parent / "a.mlir").read_text() == "before"
    assert not list(model.parent.glob(".a.mlir*"))
