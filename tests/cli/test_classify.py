"""`run` on programs that label images: the digits of the zoo, and the same file in a user's own directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

DIGITS = Path(__file__).parents[2] / "models" / "digits"
SCANS = sorted((DIGITS / "scans").glob("*.png"))


def test_a_scan_gets_its_label_and_others_follow(cli: Cli) -> None:
    result = cli("run", "digits", SCANS[0])
    assert (result.code, result.err) == (0, "")
    name, *labels = result.out.splitlines()
    assert name == str(SCANS[0])
    assert labels[0].split()[0] == SCANS[0].name[0]
    assert len(labels) == 3


def test_json_has_every_label_and_logit(cli: Cli) -> None:
    document = cli("run", "digits", *SCANS, "--json", "--top", 10).json
    assert (document["model"], document["task"]) == ("digits", "classify")
    assert [Path(image["file"]).name for image in document["images"]] == [scan.name for scan in SCANS]
    for image, scan in zip(document["images"], SCANS, strict=True):
        assert image["labels"][0]["label"] == scan.name[0]
        assert sum(label["probability"] for label in image["labels"]) == pytest.approx(1, abs=1e-5)
        assert len(image["logits"]) == 10
    assert document["timing"].keys() == {"start", "run"}


def test_the_installed_command_runs_anywhere(tmp_path: Path) -> None:
    shutil.copy(SCANS[-1], tmp_path / "scan.png")
    command = [sys.executable, "-c", "import sys; from namedtensor.cli import main; sys.exit(main())"]
    result = subprocess.run(
        [*command, "run", "digits", "scan.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(DIGITS.parents[1]), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1].split()[0] == SCANS[-1].name[0]


def test_a_users_copy_of_a_model_gives_the_same_numbers(cli: Cli, tmp_path: Path) -> None:
    for file in ("model.py", "digits.safetensors"):
        shutil.copy(DIGITS / file, tmp_path / file)
    own = cli("run", tmp_path / "model.py", SCANS[3], "--json").json
    zoo = cli("run", "digits", SCANS[3], "--json").json
    assert own["images"] == zoo["images"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "digits labels images: name at least one image file"),
        (["missing.png"], 3, "missing.png: cannot be read (No such file or directory)"),
        (["text.png"], 3, "text.png: is not an image that can be read"),
        (["."], 3, ".: is a directory; give the image itself"),
        (["text.png", "--top", "0"], 2, "'--top'"),
        (["text.png", "--prompt", "x"], 2, "digits does not take --prompt: its task is classify"),
        (["text.png", "--tops", "3"], 2, "there is no option --tops: digits takes IMAGE..., --top, and as every model"),
        (["text.png", "--weights", "text.png"], 3, "text.png"),
        (["text.png", "--set", "size=3"], 2, "digits has no option 'size'; it has none"),
    ],
)
def test_what_is_wrong_stands_in_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    result = cli("run", "digits", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[0]
    assert all("--help" in line for line in result.err.splitlines()[1:])


def test_help_shows_what_this_model_takes(cli: Cli) -> None:
    result = cli("run", "digits", "--help")
    assert result.code == 0
    assert "MODEL IMAGE... [OPTIONS]" in result.out
    assert "--top N" in result.out
    assert "--prompt" not in result.out
    general = cli("run", "--help")
    assert "--top N" in general.out
    assert "--prompt TEXT" in general.out
