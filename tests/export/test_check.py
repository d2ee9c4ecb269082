"""An archive's program held against a recorded answer; and archives unpacked with every file checked."""

import json
from pathlib import Path

import pytest

from namedtensor import InputError, zoo
from namedtensor.cli import main
from namedtensor.export import archive
from namedtensor.export.archive import _build
from tests.export import unpack as tar

SCAN = "models/digits/scans/4-1053.png"

# It answers as a runner would, with its arguments, so that what it is given can be seen.
PROGRAM = """#!/bin/sh
[ "$1" != --weights ] || { shift 2; outside=true; }
[ "$2" != fail ] || { echo "digits: error: the scan is empty" >&2; exit 3; }
printf '{"arguments": "%s", "outside": %s, "logits": [1.5, -2.0, 3e-6], "label": "4"}' "$*" "${outside:-false}"
"""


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runner = tmp_path / "runner"
    runner.write_text(PROGRAM)
    for name in ("RUNNER", "LEAN_RUNNER"):
        monkeypatch.setattr(_build, name, runner)
    archive.build(zoo.find("digits").program(), tmp_path / "digits.tar.zst", ["cpu:x86-64-v2"])
    return tmp_path / "digits.tar.zst"


def check(packed: Path, *arguments: str) -> int:
    return main(["check", str(packed), *arguments])


def answer(path: Path, **change: object) -> str:
    document = {"arguments": f"--json {SCAN}", "outside": False, "logits": [1.5, -2.0, 3e-6], "label": "4"}
    path.write_text(json.dumps(document | change))
    return str(path)


def test_what_was_recorded_is_what_is_expected(packed: Path, tmp_path: Path) -> None:
    assert check(packed, "--record", str(tmp_path / "a.json"), "--", SCAN) == 0
    assert json.loads((tmp_path / "a.json").read_text())["arguments"] == f"--json {SCAN}"
    assert check(packed, "--expect", str(tmp_path / "a.json"), "--", SCAN) == 0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"logits": [1.5, -2.001, 0.0]}, "logits[1]: -2.0, recorded -2.001"),
        ({"logits": [1.5]}, "logits: 3 elements, recorded 1"),
        ({"label": "7"}, "label: '4', recorded '7'"),
        ({"label": 4}, "label: '4', recorded 4"),
        ({"outside": 0}, "outside: False, recorded 0"),
        ({"more": 1}, "more: missing"),
        ({"logits": {"0": 1.5}}, "logits: [1.5"),
    ],
)
def test_another_answer_is_an_error_that_says_where(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], difference: str
) -> None:
    assert check(packed, "--expect", answer(tmp_path / "a.json", **change), "--", SCAN) == 1
    assert f"\n  {difference}" in capsys.readouterr().err


def test_numbers_may_differ_by_the_tolerance(packed: Path, tmp_path: Path) -> None:
    expected = answer(tmp_path / "a.json", logits=[1.50001, -2.0001, 0])
    assert check(packed, "--expect", expected, "--", SCAN) == 0
    assert check(packed, "--expect", expected, "--tolerance", "1e-6", "--", SCAN) == 1


def test_a_program_that_fails_is_an_error_with_what_it_said(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(packed, "--expect", answer(tmp_path / "a.json"), "--", "fail") == 1
    assert "ended with 3: digits: error: the scan is empty" in capsys.readouterr().err
    assert check(packed, "--record", str(tmp_path / "b.json"), "--", "fail") == 1
    assert not (tmp_path / "b.json").exists()


def test_weights_outside_are_passed_on(packed: Path, tmp_path: Path) -> None:
    expected = answer(tmp_path / "a.json", outside=True)
    assert check(packed, "--expect", expected, "--weights", str(tmp_path / "w.safetensors"), "--", SCAN) == 0


def test_usage_and_files_that_cannot_be_read(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no JSON")
    assert check(packed) == 2
    assert check(packed, "--expect", "a.json", "--record", "b.json") == 2
    assert check(packed, "--expect", str(tmp_path / "missing.json")) == 3
    assert check(packed, "--expect", str(tmp_path / "text.json")) == 3
    assert check(tmp_path / "missing.tar.zst", "--record", str(tmp_path / "a.json")) == 3


# Unpacking


def test_unpacking_gives_what_tar_gives(packed: Path, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    program = archive.unpack(packed, tmp_path / "ours")
    assert program == tmp_path / "ours" / "digits" / "digits"
    tar.unpack(packed, tmp_path / "theirs")
    trees = [
        {path.relative_to(root): (path.stat().st_mode, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "ours", tmp_path / "theirs")
    ]
    assert trees[0] == trees[1]


def test_a_damaged_archive_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError):
        archive.unpack(packed, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_unpacked_over_something(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "digits").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        archive.unpack(packed, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["digits"]
