"""An archive to make images of, and what reads layouts without this project's help."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from namedtensor import zoo
from namedtensor.export import archive
from namedtensor.export.archive import _build, compress
from tests.export.unpack import unpack

TARGETS = ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4"]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is missing, saying which."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"not here: {', '.join(missing)}; scripts/system-packages installs them on Debian"
    )


def confined() -> bool:
    """Whether bubblewrap is here and may make namespaces."""
    probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    return shutil.which("bwrap") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _built(directory: Path) -> Path:
    archive.build(zoo.find("digits").program(), directory / "digits.tar.zst", TARGETS)
    return directory / "digits.tar.zst"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of digits, with a stand-in for its runner: small, and there where no runner was built."""
    directory = tmp_path_factory.mktemp("archive")
    (directory / "runner").write_bytes(b"\x7fELF stands in for the program" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_build, "LEAN_RUNNER", directory / "runner")
        return _built(directory)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of digits as people have it."""
    if not _build.RUNNER.is_file():
        pytest.skip("scripts/build-runner has not built the runner")
    return _built(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def changed(digits: Path, tmp_path: Path) -> Callable[..., Path]:
    """Another archive of digits, some files of which are replaced and fields of bundle.json set."""

    def change(label: str, replaced: dict[str, bytes] | None = None, **fields: Any) -> Path:
        root = unpack(digits, tmp_path / f"{label}.unpacked")
        bundle = json.loads((root / "bundle.json").read_text())
        for path, data in (replaced or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
            bundle["files"][path] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (root / "bundle.json").write_text(json.dumps({**bundle, **fields}))
        if "name" in fields:
            root = root.rename(root.with_name(fields["name"]))
        compress(root, tmp_path / f"{label}.tar.zst")
        return tmp_path / f"{label}.tar.zst"

    return change


class Read:
    """A layout in a directory, read plainly."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = json.loads((root / "index.json").read_text())
        self.image = self.index["manifests"][0]

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        data = (self.root / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert len(data) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
        return data

    def json(self, descriptor: dict[str, Any]) -> Any:
        return json.loads(self.blob(descriptor))

    @property
    def manifest(self) -> Any:
        return self.json(self.image)

    @property
    def config(self) -> Any:
        return self.json(self.manifest["config"])

    def tar(self, descriptor: dict[str, Any]) -> bytes:
        """A layer without its compression."""
        data, kind = self.blob(descriptor), descriptor["mediaType"].rpartition("+")[2]
        if kind == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
        return zlib.decompress(data, wbits=31) if kind == "gzip" else data

    def layers(self) -> dict[str, list[tarfile.TarInfo]]:
        """What each layer holds, by its title."""
        titles = [one["comment"] for one in self.config["history"]]
        return {
            title: tarfile.open(fileobj=io.BytesIO(self.tar(layer))).getmembers()
            for title, layer in zip(titles, self.manifest["layers"], strict=True)
        }
