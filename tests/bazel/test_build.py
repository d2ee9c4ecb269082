"""What Bazel runs again, and what it does not: after nothing changed, weights, sources, options, packages."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from namedtensor.export import archive
from tests.bazel.conftest import Bazel, install

ARCHIVE = "//models/digits:archive"

pytestmark = pytest.mark.slow


@pytest.fixture
def built(bazel: Bazel) -> Bazel:
    """With an archive of what is there now."""
    bazel.succeeds("build", ARCHIVE)
    return bazel


def test_an_archive_is_built_and_building_again_does_nothing(built: Bazel) -> None:
    contents = archive.read(built.built / "archive.tar.zst", verify=True)
    assert contents.name == "digits"
    assert [target["name"] for target in contents.manifest["targets"]] == ["cpu:x86-64-v2"]
    built.succeeds("build", ARCHIVE)
    assert built.actions == {}


def test_other_weights_of_the_same_shapes_are_packed_and_nothing_is_compiled(built: Bazel) -> None:
    before = (built.built / "archive.tar.zst").read_bytes()
    weights = load_file(built.digits / "digits.safetensors")
    (built.digits / "digits.safetensors").unlink()
    save_file({name: value + np.float32(1) for name, value in weights.items()}, built.digits / "digits.safetensors")
    built.succeeds("build", ARCHIVE)
    assert built.actions == {"NtHeader": 1, "NtPack": 1}
    assert (built.built / "archive.tar.zst").read_bytes() != before


def test_a_changed_model_is_compiled_and_its_weights_are_not_looked_at(built: Bazel) -> None:
    model = built.digits / "model.py"
    model.write_text(model.read_text().replace("padding=1", "padding=1 + 0", 1))
    built.succeeds("build", ARCHIVE, "--output_groups=compiled")
    assert built.actions == {"NtCompile": 1}


def test_another_target_is_compiled_alone(built: Bazel) -> None:
    chips = "--@namedtensor//platforms:cpu_chips=x86-64-v2,x86-64-v3"
    built.succeeds("build", ARCHIVE, "--output_groups=compiled", chips)
    assert built.actions == {"NtCompile": 1}
    directories = sorted(path.name for path in (built.built / "archive.compiled").glob("cpu-*") if path.is_dir())
    assert directories == ["cpu-x86-64-v2", "cpu-x86-64-v3"]


def test_an_upgraded_package_builds_everything_again(built: Bazel) -> None:
    header = ("build", "//models/digits", "--output_groups=header")
    (packages,) = built.environment.glob("lib/python3*/site-packages")
    try:
        built.succeeds(*header)
        assert built.actions == {}
        install(packages, "2.0")
        built.succeeds(*header)
        assert built.actions == {"NtHeader": 1}
    finally:
        install(packages, "1.0")


def test_a_file_that_is_not_declared_is_not_there(built: Bazel) -> None:
    model = built.digits / "model.py"
    model.write_text(model.read_text().replace("WEIGHTS =", "from .sizes import SIZE\n\nWEIGHTS ="))
    (built.digits / "sizes.py").write_text("SIZE = 8\n")
    assert "sizes" in built.fails("build", ARCHIVE)
    build = built.digits / "BUILD.bazel"
    build.write_text(build.read_text().replace('main = "model.py",', 'main = "model.py",\n    srcs = ["sizes.py"],'))
    built.succeeds("build", ARCHIVE, "--output_groups=compiled")


def test_the_report_of_a_target_is_an_output_group(built: Bazel) -> None:
    built.succeeds("build", ARCHIVE, "--output_groups=reports")
    (report,) = json.loads((built.built / "archive.compiled" / "cpu-x86-64-v2.report.json").read_text())["compiled"]
    assert (report["target"], report["variant"]) == ("cpu:x86-64-v2", "classify")


def test_a_platform_is_added_without_compiling_the_others_again(built: Bazel) -> None:
    if os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip("NAMEDTENSOR_FETCH_COMPILERS=1 fetches the rocm compiler")
    workspace = built.workspace / "WORKSPACE"
    before = workspace.read_text()
    try:
        workspace.write_text(before.replace("nt_environment(", 'nt_environment(fetch = ["rocm"], '))
        built.succeeds("build", ARCHIVE, "--output_groups=compiled", "--@namedtensor//platforms:rocm=true")
    finally:
        workspace.write_text(before)
    assert built.actions == {"NtCompile": 1}
    assert (built.built / "archive.compiled" / "rocm-mi300x" / "classify.executable").stat().st_size > 5_000
