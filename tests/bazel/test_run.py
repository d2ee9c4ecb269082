"""`bazel run` and `bazel test`: the model, the archive's own program, the engine that takes an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bazel.conftest import ROOT, Bazel

pytestmark = pytest.mark.slow

SCANS = ROOT / "models" / "digits" / "scans"


def test_a_model_runs_on_the_inputs_that_it_declares(bazel: Bazel) -> None:
    assert re.match(r"models/digits/scan\.png\n  4 +\d", bazel.succeeds("run", "//models/digits"))


def test_a_model_runs_on_what_the_command_line_says_from_where_it_was_typed(bazel: Bazel, tmp_path: Path) -> None:
    # Bazel must be called within the workspace.
    directory = bazel.workspace / "scans of mine"
    directory.mkdir(exist_ok=True)
    shutil.copy(next(SCANS.glob("0-*.png")), directory / "it is a 0.png")
    said = bazel.succeeds("run", "//models/digits", "--", "it is a 0.png", "--top", "1", cwd=directory)
    assert re.match(r"it is a 0\.png\n  0 +\d", said)


def test_an_archive_is_tested_against_a_recorded_answer(bazel: Bazel) -> None:
    bazel.succeeds("test", "//models/digits:test", "--test_output=errors")


def test_another_answer_fails_the_test(bazel: Bazel) -> None:
    expected = bazel.digits / "expected.json"
    expected.write_text(expected.read_text().replace('"label": "4"', '"label": "9"', 1))
    said = bazel.fails("test", "//models/digits:test", "--test_output=errors")
    assert "images[0].labels[0].label: '4', recorded '9'" in said


# Engines that images are loaded into: none is needed to see what would be called


@pytest.fixture
def load(bazel: Bazel) -> Path:
    bazel.succeeds("build", "//models/digits:load")
    return bazel.built / "load"


def loaded(load: Path, tmp_path: Path, engines: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where there are just these engines, each of which says what it was called with."""
    path = tmp_path / "bin"
    path.mkdir()
    for engine in engines:
        (path / engine).write_text(f'#!/bin/sh\necho {engine} "$@"\n')
        (path / engine).chmod(0o755)
    command: list[str | Path] = [shutil.which("sh") or "sh", load, *arguments]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def test_an_image_is_loaded_into_the_engine_that_is_there(load: Path, tmp_path: Path) -> None:
    called, name = loaded(load, tmp_path, ["podman", "ctr"]).stdout.splitlines()
    # What podman answers to the first is what it is given next.
    assert called.startswith("podman tag podman pull --quiet oci-archive:")
    assert called.endswith("image.tar:latest localhost/models/digits:latest")
    assert name == "localhost/models/digits:latest"


@pytest.mark.parametrize(
    ("engines", "arguments", "called"),
    [
        (["docker"], (), "docker load --input "),
        (["docker", "podman", "skopeo"], (), "skopeo copy oci-archive:"),
        (["docker", "ctr"], ("--engine", "ctr"), "ctr images import --base-name localhost/models/digits "),
    ],
)
def test_every_engine_has_its_way(
    load: Path, tmp_path: Path, engines: list[str], arguments: tuple[str, ...], called: str
) -> None:
    said = loaded(load, tmp_path, engines, *arguments).stdout
    assert said.startswith(called)
    (path,) = re.findall(r"/\S*image\.tar", said)
    assert os.path.samefile(path, load.with_name("image.tar"))


def test_without_an_engine_it_says_so(load: Path, tmp_path: Path) -> None:
    done = loaded(load, tmp_path, [])
    assert done.returncode == 1
    assert "there is no docker, podman or ctr here to load the image into" in done.stderr
    done = subprocess.run([load, "--to", "docker"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
