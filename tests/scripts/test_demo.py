"""scripts/demo.py: it shows each command and its time, and fails when a command does."""

from pathlib import Path

import pytest

from scripts import demo, fetch_minilm

# Repeats its arguments; `build` also writes the archive, which `inspect` then describes.
TOOL = """
for last; do :; done
case "$1" in
    build) echo packed > "$last"; echo "a table"; echo "ran $*";;
    inspect) echo '{"bundle": {"files": {"targets/cuda-h100/a": {"bytes": 2500000}, "weights/w": {"bytes": 1e6}}}}';;
    *) echo "ran $*";;
esac
"""


def unpack(archive: Path, directory: Path) -> None:
    """As if the archive held a program that repeats its arguments."""
    name = archive.name.removesuffix(".tar.zst")
    (directory / name).mkdir()
    (directory / name / name).write_text('#!/bin/sh\necho "program $*"\n', encoding="utf-8")
    (directory / name / name).chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with eight scans, weights that are there already, and a command that repeats its arguments."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(8):
        (scans / f"scan-{number}.png").touch()
    command(tmp_path, TOOL)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "SCANS", scans)
    monkeypatch.setattr(demo, "ARCHIVES", tmp_path / "archives")
    monkeypatch.setattr(demo, "COMMAND", tmp_path / "namedtensor")
    monkeypatch.setattr(demo, "unpack", unpack)
    monkeypatch.setattr(demo, "sandbox", lambda: None)
    monkeypatch.setattr(fetch_minilm, "CACHE", tmp_path / "cache")
    fetch_minilm.place().mkdir(parents=True)
    return tmp_path


def command(checkout: Path, body: str) -> None:
    path = checkout / "namedtensor"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def test_shows_digits_then_sentences_with_what_each_printed(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    lines = capfd.readouterr().out.splitlines()
    (digits,) = (line for line in lines if line.startswith("ran run digits "))
    assert digits == "ran run digits " + " ".join(f"scans/scan-{number}.png" for number in range(8)) + " --top 1"
    (sentences,) = (line for line in lines if line.startswith("ran run minilm --weights cache/"))
    assert sentences.endswith(" ".join([demo.QUERY, *demo.SENTENCES]))
    assert sum(line.startswith("$ namedtensor run ") for line in lines) == 3


def test_builds_an_archive_of_each_for_four_platforms_and_runs_it(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert demo.main() == 0
    lines = capfd.readouterr().out.splitlines()
    for model in ("digits", "minilm", "shakespeare"):
        (built,) = (line for line in lines if line.startswith(f"ran build {model} "))
        assert [word.partition(":")[0] for word in built.split() if ":" in word] == [
            *["cpu"] * 3,
            "cuda",
            "rocm",
            "tpu",
        ]
        (row,) = (line for line in lines if line.startswith(f"  {model}"))
        assert row.split()[1:] == ["0.0", "0.0", "2.5", "0.0", "0.0", "1.0"]
    assert "a table" not in lines
    ran = [line for line in lines if line.startswith("program ")]
    assert [line.split()[1] for line in ran] == ["--top", "How", "--prompt"]
    assert ran[0].endswith("scan-2.png")


def test_stops_at_the_first_command_that_fails(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command(checkout, 'echo "ran $*"; case "$*" in *digits*) exit 3;; esac')
    assert demo.main() == 1
    shown = capfd.readouterr()
    assert "exited with status 3" in shown.err
    assert "minilm" not in shown.out


def test_fails_without_scans(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for scan in demo.SCANS.iterdir():
        scan.unlink()
    assert demo.main() == 1
    assert "no scans in scans" in capfd.readouterr().err


def test_fails_without_weights(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_network(_: Path) -> Path:
        raise fetch_minilm.FetchError("could not be downloaded")

    fetch_minilm.place().rmdir()
    monkeypatch.setattr(fetch_minilm, "download", no_network)
    assert demo.main() == 1
    assert "demo: could not be downloaded" in capfd.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 20, 100])
def test_a_few_scans_spread_over_all(count: int) -> None:
    scans = [Path(f"{number:03}.png") for number in range(count)]
    chosen = demo.chosen(scans)
    assert len(chosen) == min(count, demo.MAX_SCANS)
    assert chosen == sorted(set(chosen))
    assert count < 20 or chosen[-1] >= scans[count // 2]
