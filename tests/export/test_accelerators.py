"""Archives for accelerators, without one: the plugin is runner/pjrt's double, whose chip is the host's memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import namedtensor as nt
from namedtensor.compilers import _plugins
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from namedtensor.tasks import Classify, ImagePreprocess
from tests.export.running import confined
from tests.export.unpack import unpack

ROOT = Path(__file__).parents[2]
LINKED = RUNNER.with_name("runner-glibc")
DOUBLE = ROOT / "runner" / "target" / "debug" / "examples" / "libdouble.so"
CHIP = "NVIDIA H100 80GB HBM3,9.0"
SIDE = 3
LABELS = SIDE * SIDE * 3
# What the double takes for the program below: its input, twice, in the shape of the results.
PROGRAM = f"COPY 1x{LABELS} 1x{LABELS}".encode()
PORTABLE = b"ML\xefR" + PROGRAM

pytestmark = [
    pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner"),
    pytest.mark.skipif(not LINKED.is_file(), reason="scripts/build-runner has not built the runner that loads plugins"),
    pytest.mark.skipif(not DOUBLE.is_file(), reason="cargo test has not built the plugin for tests"),
]


class Nothing(nt.Module):
    """No weights: the logits are the pixels."""


def pixels(model: Nothing, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = images.merge("h w c -> label")
    return {"logits": logits, "probabilities": logits * 2}


def add(root: Path, manifest: dict[str, Any], path: str, data: bytes, *, mode: int = 0o644) -> str:
    """Put a file into an unpacked archive, and list it."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    (root / path).chmod(mode)
    manifest["files"][path] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a target of the CPU, and one for an H100 whose plugin is the double.

    On the CPU probabilities are twice the logits; on the double they are the same: that tells which of them ran.
    """
    packed = tmp_path_factory.mktemp("archive") / "pixels.tar.zst"
    sizes = {"b": 1, "h": SIDE, "w": SIDE, "c": 3}
    program = nt.Program(
        Nothing(),
        {"classify": nt.entry(pixels, images=nt.spec("b h w c", **sizes))},
        task=Classify(ImagePreprocess(SIDE, SIDE), labels=tuple(map(str, range(LABELS)))),
        name="pixels",
    )
    archive.build(program, packed, ["cpu:x86-64-v2"])
    root = unpack(packed, tmp_path_factory.mktemp("root"))
    manifest = json.loads((root / "bundle.json").read_text())
    executable = add(root, manifest, "targets/cuda-h100/classify.executable", PROGRAM)
    target = {"name": "cuda:h100", "architecture": "9.0a", "executables": {"classify": executable}, "libraries": []}
    manifest["targets"].append(target)
    add(root, manifest, "plugins/runner", LINKED.read_bytes(), mode=0o755)
    manifest["plugins"]["cuda"] = {
        "releases": {"double": "1"},
        "library": add(root, manifest, "plugins/cuda/plugin.so", DOUBLE.read_bytes()),
        "libraries": [],
        "data": None,
        "host": [],
        "glibc": "2.17",
        "left_out": {},
    }
    add(root, manifest, "programs/classify.mlirbc", PORTABLE)
    (root / "bundle.json").write_text(json.dumps(manifest))
    return root


class Machine:
    """A copy of the archive, an image, and a machine whose hardware is made up."""

    def __init__(self, directory: Path, original: Path) -> None:
        self.archive = directory / "pixels"
        shutil.copytree(original, self.archive)
        self.image = directory / "image.png"
        noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(self.image)
        self.root = directory / "machine"
        self.cache = directory / "cache"
        self.environment = {
            "NAMEDTENSOR_MACHINE_ROOT": str(self.root),
            "NAMEDTENSOR_CACHE": str(self.cache),
            "NT_PJRT_DOUBLE_CHIP": CHIP,
        }

    def shows(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.archive / "bundle.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    def replace(self, path: str, data: bytes) -> None:
        self.change(lambda manifest: add(self.archive, manifest, path, data))

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.archive / "pixels", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=60,
        )

    def ran_on(self, *arguments: str | Path, told: str = "") -> str:
        """Which device gave the answer; `told` must be on stderr, and nothing where it is empty."""
        found = self.run(self.image, "--json", *arguments)
        assert found.returncode == 0, found.stderr
        assert found.stderr.count("\n") == bool(told), found.stderr
        assert told in found.stderr
        (image,) = json.loads(found.stdout)["images"]
        ratio = image["labels"][0]["probability"] / image["labels"][0]["logit"]
        return {1: "double", 2: "cpu"}[round(ratio)]

    def refusal(self, *arguments: str | Path) -> str:
        found = self.run(self.image, *arguments)
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.startswith("pixels: error: ")
        assert found.stderr.count("\n") == 1
        return found.stderr.strip()


@pytest.fixture
def machine(original: Path, tmp_path: Path) -> Machine:
    return Machine(tmp_path, original)


@pytest.fixture
def gpu(machine: Machine) -> Machine:
    """A machine with the driver of an NVIDIA GPU."""
    machine.shows("dev/nvidiactl")
    return machine


def test_without_an_accelerator_the_cpu_runs_it_and_nothing_is_said(machine: Machine) -> None:
    assert machine.ran_on() == "cpu"


def test_an_accelerator_that_is_here_is_taken(gpu: Machine) -> None:
    assert gpu.ran_on() == "double"
    assert not gpu.cache.exists()


@pytest.mark.parametrize(("target", "device"), [("cpu", "cpu"), ("cpu:x86-64-v2", "cpu"), ("cuda", "double")])
def test_a_target_or_a_platform_can_be_named(gpu: Machine, target: str, device: str) -> None:
    assert gpu.ran_on("--target", target) == device


def test_a_target_that_is_named_needs_no_sign_of_its_hardware(machine: Machine) -> None:
    assert machine.ran_on("--target", "cuda:h100") == "double"


def test_targets_are_listed_with_what_this_machine_makes_of_them(machine: Machine) -> None:
    found = machine.run("--targets")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "cpu:x86-64-v2  runs here, and is chosen",
        "cuda:h100      there is no NVIDIA GPU with its driver here (no /dev/nvidiactl)",
    ]
    machine.shows("dev/nvidiactl")
    assert machine.run("--targets").stdout.splitlines() == ["cpu:x86-64-v2  runs here", "cuda:h100      runs here"]


def test_what_the_cpu_takes_over_from_an_accelerator_is_told_with_the_reason(gpu: Machine) -> None:
    gpu.environment["NT_PJRT_DOUBLE"] = "old"
    told = "pixels: cuda cannot be used (" + str(gpu.archive / "plugins/cuda/plugin.so")
    assert gpu.ran_on(told=told) == "cpu"
    assert gpu.refusal("--target", "cuda").startswith("pixels: error: the executable cannot be loaded: cuda cannot be")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("glibc", "2.99", "its plugin needs glibc 2.99, and here is 2."),
        ("host", ["libnosuchdriver.so.1"], "the driver's libnosuchdriver.so.1 cannot be loaded"),
        ("library", None, "the archive has no plugin for it; --plugin says where one is"),
    ],
)
def test_what_a_plugin_needs_of_the_machine_is_told(gpu: Machine, field: str, value: object, told: str) -> None:
    gpu.change(lambda manifest: manifest["plugins"]["cuda"].update({field: value}))
    assert gpu.ran_on(told=told) == "cpu"
    assert told in gpu.refusal("--target", "cuda:h100")


def test_a_plugin_outside_of_the_archive_can_be_named(gpu: Machine) -> None:
    gpu.change(lambda manifest: manifest["plugins"]["cuda"].update(library=None))
    assert gpu.ran_on("--plugin", gpu.archive / "plugins/cuda/plugin.so") == "double"


@pytest.mark.parametrize("path", ["plugins/cuda/plugin.so", "plugins/runner", "targets/cuda-h100/classify.executable"])
def test_damaged_files_of_an_accelerator_are_not_used(gpu: Machine, path: str) -> None:
    data = bytearray((gpu.archive / path).read_bytes())
    data[len(data) // 2] ^= 1
    (gpu.archive / path).write_bytes(data)
    assert "its digest is another" in gpu.refusal("--target", "cuda")
    # Nor are they read where they are not needed.
    assert gpu.ran_on("--target", "cpu") == "cpu"


def test_a_chip_of_the_same_architecture_runs_the_executables(gpu: Machine) -> None:
    gpu.environment["NT_PJRT_DOUBLE_CHIP"] = "NVIDIA H200,9.0"
    gpu.replace("programs/classify.mlirbc", b"ML\xefRdamaged")
    assert gpu.ran_on("--target", "cuda:h100") == "double"


def test_the_executables_of_the_very_chip_come_first(gpu: Machine) -> None:
    def second(manifest: dict[str, Any]) -> None:
        path = add(gpu.archive, manifest, "targets/cuda-h200/classify.executable", b"damaged")
        executables = {"classify": path}
        named = {"name": "cuda:h200", "architecture": "9.0a", "executables": executables, "libraries": []}
        manifest["targets"].append(named)

    gpu.change(second)
    assert gpu.ran_on() == "double"
    gpu.environment["NT_PJRT_DOUBLE_CHIP"] = "NVIDIA H200,9.0"
    assert gpu.ran_on(told="cuda:h200: classify is refused") == "double"


def test_for_another_chip_the_portable_program_is_compiled_and_kept(gpu: Machine) -> None:
    gpu.environment["NT_PJRT_DOUBLE_CHIP"] = "NVIDIA L4,8.9"
    assert "cuda:h100 is for 9.0a; here is NVIDIA L4 (8.9)" in gpu.refusal("--target", "cuda:h100")
    assert gpu.ran_on() == "double"
    (kept,) = (gpu.cache / "executables").iterdir()
    assert kept.read_bytes().endswith(PROGRAM)
    # The second time it is not compiled: a program that cannot be is not even read.
    (gpu.archive / "programs/classify.mlirbc").write_bytes(b"changed")
    assert gpu.ran_on() == "double"
    # Whatever is damaged is not used, and made anew.
    (gpu.archive / "programs/classify.mlirbc").write_bytes(PORTABLE)
    kept.write_bytes(kept.read_bytes()[:-1] + b"9")
    assert gpu.ran_on() == "double"
    assert kept.read_bytes().endswith(PROGRAM)
    # Another chip has another executable.
    gpu.environment["NT_PJRT_DOUBLE_CHIP"] = "NVIDIA A100,8.0"
    assert gpu.ran_on() == "double"
    assert len(list((gpu.cache / "executables").iterdir())) == 2


@pytest.mark.parametrize("cache", ["off", "/proc/nothing"])
def test_without_a_cache_it_is_compiled_every_time(gpu: Machine, cache: str) -> None:
    gpu.environment |= {"NT_PJRT_DOUBLE_CHIP": "NVIDIA L4,8.9", "NAMEDTENSOR_CACHE": cache}
    assert gpu.ran_on() == "double"
    gpu.replace("programs/classify.mlirbc", b"ML\xefRdamaged")
    assert "not an executable of this plugin" in gpu.refusal("--target", "cuda")


def test_an_executable_that_the_plugin_refuses_is_compiled_here(gpu: Machine) -> None:
    gpu.replace("targets/cuda-h100/classify.executable", b"of another release")
    assert gpu.ran_on(told="cuda:h100: classify is refused") == "double"
    assert "the executable cannot be loaded" in gpu.refusal("--target", "cuda:h100")


def test_what_a_program_reads_from_stdin_and_its_arguments_pass_through(gpu: Machine) -> None:
    found = gpu.run(gpu.image, "--top", "2")
    assert found.returncode == 0
    assert len(found.stdout.splitlines()) == 3
    wrong = gpu.run(gpu.image, "--top", "none")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_amd_gpus_and_tpus_are_tried_only_where_there_is_a_plugin(machine: Machine) -> None:
    machine.shows("sys/class/kfd/kfd/topology/nodes/1/properties", "gfx_target_version 90402\n")
    machine.shows("sys/bus/pci/devices/0000:00:04.0/vendor", "0x1ae0\n")
    machine.shows("sys/bus/pci/devices/0000:00:04.0/device", "0x0063\n")
    assert machine.ran_on() == "cpu"


@pytest.mark.skipif(not confined(), reason="bubblewrap is not here, or may not make namespaces")
def test_without_a_c_library_the_cpu_runs_it(gpu: Machine) -> None:
    """An empty root file system, as in an image made of nothing but the archive."""
    shutil.copy(gpu.image, gpu.archive)
    (gpu.archive / "dev").mkdir()
    command = ["bwrap", "--ro-bind", str(gpu.archive), "/", "--unshare-all", "--clearenv"]
    command += ["--setenv", "NAMEDTENSOR_MACHINE_ROOT", "/machine"]
    shutil.copytree(gpu.root, gpu.archive / "machine")
    found = subprocess.run([*command, "/pixels", "/image.png"], capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0
    reason = "the C library (glibc 2.28 or later) that plugins need is not on this machine"
    assert found.stderr == f"pixels: cuda cannot be used ({reason}); running cpu:x86-64-v2\n"
    assert os.fspath(gpu.image.name) in found.stdout


def test_libtpu_is_not_started_where_there_is_no_tpu(machine: Machine) -> None:
    """It would look for one elsewhere, for minutes."""

    def other(manifest: dict[str, Any]) -> None:
        manifest["targets"][1]["name"] = "tpu:v5e-1"
        manifest["plugins"] = {"tpu": manifest["plugins"]["cuda"]}

    machine.change(other)
    assert "tpu cannot be used here: there is no TPU here" in machine.refusal("--target", "tpu")


def test_a_real_plugin_tells_in_one_line_that_its_chip_is_missing(gpu: Machine) -> None:
    if not _plugins.present("cuda") and os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip("the cuda compiler is not in the cache; NAMEDTENSOR_FETCH_COMPILERS=1 fetches it")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU here")
    library = _plugins.plugin("cuda").library
    told = "the plugin finds no accelerator that it can use: "
    assert f"cuda cannot be used here: {told}" in gpu.refusal("--target", "cuda", "--plugin", library)
    assert gpu.ran_on("--plugin", library, told=f"pixels: cuda cannot be used ({told}") == "cpu"
