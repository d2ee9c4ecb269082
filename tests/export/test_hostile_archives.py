"""Archives that were damaged, or made to mislead, run by their own program: the right answer, or one line that says no.

Each mutation changes an unpacked archive and starts its program. NAMEDTENSOR_MUTATIONS says how many; the whole run
has 10,000. Some are sealed: `bundle.json` is given the changed file's size and digest, so that the readers of the files
within see them. Machine code itself is not changed then: whoever seals an archive may put any code into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from namedtensor import zoo
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from tests.export.running import PATIENCE, WATCHED, WATCHER, environment
from tests.export.unpack import unpack

COUNT = int(os.environ.get("NAMEDTENSOR_MUTATIONS", "1000"))
SCAN = min((Path(__file__).parents[2] / "models" / "digits" / "scans").glob("*.png"))
WEIGHTS = "weights/model.safetensors"
# Kilobytes of address space: more than an archive of this size takes, however large it says that it is.
MOST_MEMORY = "unlimited" if WATCHED else str((256 << 20) >> 10)
# Numbers that programs trip over.
NUMBERS = [-1, 0, 1, 63, 64, 65, 1 << 31, (1 << 32) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64]
TEXTS = [
    "",
    ".",
    "..",
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "x" * 5000,
    "\0",
    "\n",
    "\x1b[2J",
    "é",
    "bundle.json",
]
NTX_HEADER = 64

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = tmp_path_factory.mktemp("archive") / "digits.tar.zst"
    archive.build(zoo.find("digits").program(), packed, ["cpu:x86-64-v2", "cpu:x86-64-v3"])
    return unpack(packed, tmp_path_factory.mktemp("root"))


class Victim:
    """An archive to mutate and to run, and to put back as it was."""

    def __init__(self, original: Path, directory: Path, seed: int) -> None:
        self.original = original
        self.outside = directory / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes((original / WEIGHTS).read_bytes())
        self.root = directory / "digits"
        shutil.copytree(original, self.root)
        self.here = directory / "here"
        self.here.mkdir()
        self.random = random.Random(seed)
        self.files = sorted(path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file())
        self.files.remove("digits")
        self.manifest = (original / "bundle.json").read_bytes()
        self.answer = self.run().stdout
        assert b'"images"' in self.answer

    def run(self) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [
                "/bin/sh",
                "-c",
                f'ulimit -v {MOST_MEMORY}; exec "$@"',
                "sh",
                *WATCHER,
                self.root / "digits",
                SCAN,
                "--json",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd=self.here,
            env={"HOME": str(self.here), **environment(self.root)},
            timeout=PATIENCE,
        )

    def restore(self) -> None:
        for place in sorted(self.root.rglob("*")):
            twin = self.original / place.relative_to(self.root)
            if place.is_symlink() or place.is_fifo() or (place.is_dir() and not twin.is_dir()):
                place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
        shutil.copytree(
            self.original, self.root, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n == "digits"]
        )

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).write_bytes(data)

    # Each changes something, says what, and whether the answer may be another one.

    def mutate(self) -> tuple[str, bool]:
        path = self.random.choice(self.files)
        ways = [self.bytes_, self.bytes_, self.manifest_text, self.manifest_value, self.manifest_value]
        ways += [self.place, self.version, self.swap, self.sealed, self.sealed]
        return self.random.choice(ways)(path)

    def damaged(self, data: bytes, until: int) -> bytes:
        """Data with a few changes before `until`: bits, numbers, a cut, a piece put in or taken out."""
        data_, pick = bytearray(data), self.random
        until = min(until, len(data_))
        for _ in range(pick.randint(1, 3)):
            at = pick.randrange(max(until, 1))
            match pick.randrange(5):
                case 0:
                    data_[at : at + 1] = bytes([pick.randrange(256)])
                case 1:
                    data_[at : at + 8] = (pick.choice(NUMBERS) % (1 << 64)).to_bytes(8, "little")
                case 2:
                    del data_[at : at + pick.randint(1, 64)]
                case 3:
                    data_[at:at] = data_[: pick.randint(1, 64)]
                case _:
                    if at < len(data_):
                        data_[at] ^= 1 << pick.randrange(8)
        if pick.randrange(8) == 0:
            del data_[pick.randrange(len(data_) + 1) :]
        return bytes(data_)

    def bytes_(self, path: str) -> tuple[str, bool]:
        data = (self.root / path).read_bytes()
        self.write(path, self.damaged(data, len(data)))
        return f"{path}: bytes", False

    def manifest_text(self, path: str) -> tuple[str, bool]:
        self.write("bundle.json", self.damaged(self.manifest, len(self.manifest)))
        return "bundle.json: text", True

    def version(self, path: str) -> tuple[str, bool]:
        manifest = json.loads(self.manifest)
        manifest["version"] = self.random.choice([0, 2, -1, 1.5, "1", None, [], 1 << 64])
        self.write("bundle.json", json.dumps(manifest).encode())
        return f"version {manifest['version']!r}", False

    def manifest_value(self, path: str) -> tuple[str, bool]:
        """One value or key somewhere in bundle.json is replaced."""
        manifest = json.loads(self.manifest)
        values = list(_values(manifest))
        holder, key = self.random.choice(values)
        new: Any = self.random.choice([*NUMBERS, *TEXTS, None, True, [], {}, [[]], 1e308])
        if isinstance(holder, dict) and self.random.randrange(4) == 0:
            holder[str(new)] = holder.pop(key)
        elif self.random.randrange(6) == 0:
            del holder[key]
        else:
            holder[key] = new
        self.write("bundle.json", json.dumps(manifest).encode())
        return f"bundle.json: {key!r} is {str(new)[:40]!r}", True

    def place(self, path: str) -> tuple[str, bool]:
        """Something other than the file lies at its place, or where its directory was."""
        place = self.root / path
        if "/" in path and self.random.randrange(3) == 0:
            place = self.root / path.split("/")[0]
            shutil.rmtree(place)
        else:
            place.unlink()
        kind = self.random.randrange(6)
        match kind:
            case 0:
                place.symlink_to(self.outside / "secret")
            case 1:
                place.symlink_to(place.name)
            case 2:
                place.symlink_to(self.outside)
            case 3:
                place.mkdir()
            case 4:
                os.mkfifo(place)
            case _:
                pass
        return f"{path}: place {kind}", False

    def swap(self, path: str) -> tuple[str, bool]:
        other = self.random.choice(self.files)
        self.write(path, (self.original / other).read_bytes())
        return f"{path} is {other}", False

    def sealed(self, path: str) -> tuple[str, bool]:
        """Headers are changed, and the digests say that it is right so."""
        path = self.random.choice([path for path in self.files if path != "bundle.json"])
        data = (self.original / path).read_bytes()
        until = NTX_HEADER if path.endswith(".ntx") else len(data)
        if path == WEIGHTS:
            until = 8 + int.from_bytes(data[:8], "little")
        data = self.damaged(data, until)
        if path.endswith(".ntx") and data[NTX_HEADER:] != (self.original / path).read_bytes()[NTX_HEADER:]:
            # What was moved would be run where it does not belong.
            data = data[: self.random.randrange(len(data) + 1)]
            data = data if len(data) < NTX_HEADER else data[:NTX_HEADER]
        self.write(path, data)
        manifest = json.loads(self.manifest)
        seal = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["files"][path] = seal
        if path == WEIGHTS:
            manifest["weights"].update(seal)
        self.write("bundle.json", json.dumps(manifest).encode())
        return f"{path}: sealed", True


def _values(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document, as what holds it and its key there."""
    keys: Any = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _values(tree[key])


def test_mutated_archives_give_the_answer_or_one_line(original: Path, tmp_path: Path) -> None:
    victim = Victim(original, tmp_path, seed=20261120)
    outcomes = {"answered": 0, "refused": 0}
    for number in range(COUNT):
        what, another = victim.mutate()
        found = victim.run()
        told = f"mutation {number}, {what}: {found}"
        if found.returncode == 0:
            outcomes["answered"] += 1
            assert found.stderr == b"", told
            assert another or found.stdout == victim.answer, told
            assert json.loads(found.stdout)["task"] == "classify", told
        else:
            outcomes["refused"] += 1
            assert found.returncode in (1, 2, 3), told
            assert found.stdout == b"", told
            line = found.stderr.decode()
            assert line.endswith("\n"), told
            assert line[:-1].isprintable(), told
            assert "fault" not in line, told
        # Nothing was written anywhere.
        assert not list(victim.here.iterdir()), told
        assert [path.name for path in victim.outside.iterdir()] == ["secret"], told
        victim.restore()
    assert [path for path in tmp_path.iterdir() if path.name not in ("outside", "digits", "here")] == []
    # Both kinds are there, or the mutations are not worth much.
    assert min(outcomes.values()) > COUNT // 20, outcomes
