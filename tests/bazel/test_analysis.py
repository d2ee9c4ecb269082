"""What rules make of their attributes: the commands that Bazel would run, and mistakes that it reports."""

from __future__ import annotations

import json

import pytest

from tests.bazel.conftest import Bazel

pytestmark = pytest.mark.slow


def commands(bazel: Bazel, mnemonic: str, target: str, *flags: str) -> list[list[str]]:
    """Arguments of the actions of a kind that make a target; the first are the shell's."""
    graph = json.loads(bazel.succeeds("aquery", "--output=jsonproto", *flags, f"mnemonic({mnemonic}, {target})"))
    return [action["arguments"] for action in graph["actions"]]


def targets(bazel: Bazel, *settings: str) -> list[str]:
    """The targets that settings of platforms ask for."""
    flags = [f"--@namedtensor//platforms:{setting}" for setting in settings]
    found = commands(bazel, "NtCompile", "//models/digits:archive", *flags)
    return sorted(command[command.index("--target") + 1] for command in found)


def declare(bazel: Bazel, text: str) -> None:
    build = bazel.digits / "BUILD.bazel"
    build.write_text(f"{build.read_text()}\n{text}\n")


def test_settings_say_what_to_compile_for(bazel: Bazel) -> None:
    assert targets(bazel, "rocm=true") == ["cpu:x86-64-v2", "rocm:mi300x"]
    chips = ("cpu=false", "cuda=true", "cuda_chips=l4,h100", "tpu=true")
    assert targets(bazel, *chips) == ["cuda:h100", "cuda:l4", "tpu:v5e-1"]
    nothing = "--@namedtensor//platforms:cpu=false"
    assert "every platform" in bazel.fails("build", "//models/digits:archive", nothing)


def test_attributes_become_options_of_the_command(bazel: Bazel) -> None:
    declare(
        bazel,
        """nt_archive(
    name = "bare",
    model = ":digits",
    plugins = False,
    targets = ["cuda:l4"],
    weights_outside = True,
)

nt_image(
    name = "other",
    archives = [":archive", ":bare"],
    base = "scan.png",
    base_tag = "12",
    compression = "gzip",
    ports = ["8080"],
    tag = "v1",
    user = "1000:1000",
)

nt_model(
    name = "zoo",
    options = {"dtype": "bfloat16"},
    weights = ["digits.safetensors"],
    zoo = "llama",
)

nt_archive(
    name = "llama",
    model = ":zoo",
)""",
    )
    (pack,) = commands(bazel, "NtPack", "//models/digits:bare")
    text = " ".join(pack)
    assert "--target cuda:l4 --compiled " in text
    assert "--no-plugins --weights-outside " in text
    (image,) = commands(bazel, "NtImage", "//models/digits:other")
    text = " ".join(image)
    assert text.endswith(
        "--tag v1 --compression gzip --port 8080 --user 1000:1000 --base oci:models/digits/scan.png:12"
    )
    assert ".tar.zst" in image[image.index("build") + 2]
    (compiled,) = commands(bazel, "NtCompile", "//models/digits:llama")
    text = " ".join(compiled)
    assert " compile llama --weights " in text
    assert " --set dtype=bfloat16 " in text


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ('nt_model(name = "x", weights = ["digits.safetensors"])', "give either main, a model file, or zoo"),
        (
            'nt_model(name = "x", main = "model.py", weights = ["digits.safetensors", "//other:w"])',
            "in models/digits, other",
        ),
        ('nt_push(name = "x", image = ":image", remote_tags = ["a b"])', '"a b" is no tag'),
    ],
)
def test_a_mistake_in_a_build_file_is_an_error_that_says_so(bazel: Bazel, target: str, problem: str) -> None:
    other = bazel.workspace / "other"
    other.mkdir(exist_ok=True)
    (other / "BUILD.bazel").write_text('exports_files(["w"])\n')
    (other / "w").write_text("")
    declare(bazel, target)
    assert problem in bazel.fails("build", "//models/digits:x")


def test_another_command_can_be_set(bazel: Bazel) -> None:
    tools = bazel.workspace / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "nt.sh").write_text(f'#!/bin/sh\nexec {bazel.environment}/bin/namedtensor "$@"\n')
    (tools / "nt.sh").chmod(0o755)
    (tools / "BUILD.bazel").write_text(
        'load("@namedtensor//:defs.bzl", "nt_toolchain")\nnt_toolchain(name = "mine", tool = "nt.sh")\n'
    )
    found = commands(bazel, "NtCompile", "//models/digits:archive", "--@namedtensor//:toolchain=//tools:mine")
    assert "tools/nt.sh" in " ".join(found[0])


def test_an_environment_that_cannot_be_used_is_an_error_that_says_so(bazel: Bazel, tmp_path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"it has no namedtensor (No module named 'namedtensor')\" >&2\nexit 1\n")
    python.chmod(0o755)
    said = bazel.fails("build", "//models/digits:archive", python=python)
    assert f"{python}, from NAMEDTENSOR_PYTHON, cannot be used: it has no namedtensor" in said
    assert "--repo_env=NAMEDTENSOR_PYTHON=/path/to/python" in said
