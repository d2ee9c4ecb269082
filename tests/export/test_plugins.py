"""What archives hold to run the executables of accelerators: with stand-ins, and with real plugins where they are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from namedtensor import ModelError
from namedtensor.compilers import _plugins
from namedtensor.export.archive import _plugins as packing
from namedtensor.export.archive._plugins import pack
from tests.export.test_elf import shared


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CUDA plugin and NVIDIA's libraries as a few functions; returns the names of libraries that were fetched."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    root = tmp_path / "fetched"
    (root / "nvidia/cu13/bin").mkdir(parents=True)
    (root / "nvidia/cu13/nvvm/libdevice").mkdir(parents=True)
    (root / "nvidia/cu13/bin/ptxas").write_bytes(b"an assembler")
    (root / "nvidia/cu13/nvvm/libdevice/libdevice.10.bc").write_bytes(b"bitcode")
    plugin = shared(root, "xla_cuda_plugin.so", "int GetPjrtApi(void) { return 1; }")
    made: dict[str, Path] = {}
    fetched: list[str] = []

    def library(package: str, name: str) -> Path:
        fetched.append(name)
        if name not in made:
            needed = [library("nvidia-cublas", "libcublasLt.so.13")] if name == "libcublas.so.13" else []
            made[name] = shared(root, name, "int version(void) { return 13; }", *needed)
        return made[name]

    monkeypatch.setattr(_plugins, "plugin", lambda platform: _plugins.Plugin(platform, plugin, root))
    monkeypatch.setattr(_plugins, "library", library)
    return fetched


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root / "plugins/cuda").as_posix() for path in root.rglob("*") if path.is_file())


PLUGIN = ["data/bin/ptxas", "data/nvvm/libdevice/libdevice.10.bc", "libcudart.so.13", "xla_cuda_plugin.so"]


def test_a_program_that_calls_no_library_gets_none(stand_ins: list[str], tmp_path: Path) -> None:
    entry = pack("cuda", [], tmp_path / "root", inside=True)
    assert files(tmp_path / "root") == PLUGIN
    assert set(stand_ins) == {"libcudart.so.13"}
    assert entry["library"] == "plugins/cuda/xla_cuda_plugin.so"
    assert entry["libraries"] == ["plugins/cuda/libcudart.so.13"]
    assert entry["data"] == "plugins/cuda/data"
    assert "libcuda.so.1" in entry["host"]
    assert entry["left_out"]["libcudnn.so.9"] == entry["left_out"]["libcublas.so.13"] == "no executable calls it"
    assert set(entry["releases"]) == {"jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-runtime"}


def test_a_library_that_is_called_comes_with_what_it_needs(stand_ins: list[str], tmp_path: Path) -> None:
    entry = pack("cuda", ["cublas"], tmp_path / "root", inside=True)
    assert files(tmp_path / "root") == sorted([*PLUGIN, "libcublas.so.13", "libcublasLt.so.13"])
    order = [Path(path).name for path in entry["libraries"]]
    assert order.index("libcublasLt.so.13") < order.index("libcublas.so.13")
    assert not {"libcublas.so.13", "libcublasLt.so.13"} & entry["left_out"].keys()
    assert "nvidia-cublas" in entry["releases"]


def test_cudnn_comes_with_the_parts_that_it_loads_by_name(stand_ins: list[str], tmp_path: Path) -> None:
    entry = pack("cuda", ["cudnn"], tmp_path / "root", inside=True)
    assert {"plugins/cuda/libcudnn_cnn.so.9", "plugins/cuda/libcudnn_graph.so.9"} <= set(entry["libraries"])


def test_a_plugin_can_stay_outside_and_then_nothing_is_fetched(stand_ins: list[str], tmp_path: Path) -> None:
    entry = pack("cuda", ["cudnn"], tmp_path / "root", inside=False)
    assert not (tmp_path / "root").exists()
    assert stand_ins == []
    assert (entry["library"], entry["libraries"], entry["data"], entry["glibc"]) == (None, [], None, None)
    assert {"libcuda.so.1", "libcudnn.so.9"} <= set(entry["host"])
    assert entry["releases"]["jax-cuda13-pjrt"]


def test_libraries_that_need_too_new_a_glibc_are_refused(
    stand_ins: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "GLIBC", (2, 1))
    with pytest.raises(ModelError, match=r"cuda: its libraries need glibc 2\.\d+"):
        pack("cuda", [], tmp_path / "root", inside=True)


def test_every_library_of_a_platform_is_pinned() -> None:
    pins = _plugins.releases("cuda-libraries")
    for platform in packing._PLATFORMS.values():
        assert set(platform.packages.values()) <= pins.keys()
        for names in platform.called.values():
            assert set(names) <= platform.packages.keys()
    for package in pins:
        lines = _plugins._pin(package).splitlines()
        assert lines[0].startswith(f"{package}==")
        assert all("--hash=sha256:" in line for line in lines[1:])


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_packed_plugin_loads_by_itself(platform: str, tmp_path: Path) -> None:
    if not _plugins.present(platform) and os.environ.get("NAMEDTENSOR_FETCH_COMPILERS") != "1":
        pytest.skip(f"the {platform} compiler is not in the cache; NAMEDTENSOR_FETCH_COMPILERS=1 fetches it")
    entry: dict[str, Any] = pack(platform, [], tmp_path, inside=True)
    code = "import ctypes, sys\nfor path in sys.argv[1:]: library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)\n"
    code += "library.GetPjrtApi.restype = ctypes.c_void_p\nassert library.GetPjrtApi()"
    paths = [tmp_path / path for path in (*entry["libraries"], entry["library"])]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert entry["glibc"] == "2.27"
