"""From a program to an archive (docs/archive-format.md): the directory, and the file that it is packed into."""

from __future__ import annotations

import concurrent.futures.thread
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxlib.version
import zstandard
from jax._src import source_info_util

import namedtensor
from namedtensor._errors import InputError, ModelError, closest
from namedtensor.export.archive._executables import Executables, Fresh, Prepared
from namedtensor.export.archive._signature import arguments, results
from namedtensor.export.archive._weights import write_weights

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled, Target
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry

VERSION = 1
MANIFEST = "bundle.json"
WEIGHTS = "weights/model.safetensors"
TOKENIZER = "assets/tokenizer.json"
# Tasks that the runner knows (runner/tasks).
TASKS = ("classify",)

RUNNER = Path(namedtensor.__file__).with_name("_native") / "runner"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = (MANIFEST, "assets", "plugins", "programs", "targets", "weights")
_BLOCK = 1 << 20
# The strongest level that is still quick: weights hardly get smaller, the runner and the programs do.
_SMALL, _LEVEL_SMALL, _LEVEL_LARGE = 1 << 26, 19, 6


@dataclass(frozen=True)
class Report:
    """An archive that was made: its file, the files in it with their sizes, and how large they are together."""

    path: Path
    bytes: int
    files: dict[str, int]
    outside: Path | None

    @property
    def unpacked(self) -> int:
        return sum(self.files.values())


def build(
    program: Program,
    output: Path,
    targets: Sequence[str],
    *,
    weights_outside: Path | None = None,
    compiled: Sequence[Path] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> Report:
    """Compile a program for all `targets`, and pack it with its weights and the runner into `output`, a .tar.zst.

    The same program, weights, targets and release give the same bytes. `output` appears when it is complete, or not
    at all. `weights_outside` writes the weights to that file instead, to be given to the program when it starts.
    `compiled` are directories of executables that `namedtensor compile` wrote: nothing is compiled then.
    `on_step` is told what is done next.

    Raises `ModelError` for a program that the runner cannot run, or cannot be compiled, `InputError` for a target that
    does not exist, `CheckpointError` where weights cannot be read.
    """
    name = _checked_name(program)
    task = _task(program)
    levels, chips = split_targets(targets)
    executables: Executables = Prepared(compiled) if compiled else Fresh()
    if not RUNNER.is_file():
        raise ModelError("the runner was not built, which every archive holds: run scripts/build-runner (needs cargo)")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        root = Path(temporary) / name
        root.mkdir()
        shutil.copyfile(RUNNER, root / name)
        task = _pack_assets(task, root)
        listed = []
        on_step("portable programs")
        lowered = lower(program)
        for variant, entry in lowered.items():
            _write(root / _program(variant), entry.bytecode())
        for level in levels:
            listed.append(_cpu(root, lowered, level, executables, on_step))
        listed += _accelerators(root, program, chips, executables, on_step)
        on_step("weights")
        outside = None if weights_outside is None else Path(temporary) / "outside.safetensors"
        weights = _weights(program, root, outside)
        manifest = {
            "version": VERSION,
            "name": name,
            "compiler": {"jaxlib": jaxlib.version.__version__},
            "task": task,
            "entries": _entries(program, lowered),
            "targets": listed,
            "plugins": {platform: _outside() for platform in dict.fromkeys(chip.platform for chip in chips)},
            "weights": weights,
            "files": {path: _digest(root / path) for path in _files(root)},
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (root / MANIFEST).write_text(text, encoding="utf-8")
        on_step("compression")
        packed = Path(temporary) / "archive"
        compress(root, packed)
        files = {path: (root / path).stat().st_size for path in (MANIFEST, *_files(root))}
        if outside is not None and weights_outside is not None:
            os.replace(outside, weights_outside)
        _publish(packed, output)
    return Report(output, output.stat().st_size, files, weights_outside)


def compress(root: Path, output: Path) -> None:
    """Pack a directory, under its own name, as tar and Zstandard; only names and contents decide about the bytes.

    `bundle.json` comes first, so that a reader knows from the start what follows.
    """
    files = _files(root)
    total = sum((root / path).stat().st_size for path in files)
    level = _LEVEL_SMALL if total <= _SMALL else _LEVEL_LARGE
    # With threads, however many, the pieces and so the bytes are the same.
    threads = max(1, os.cpu_count() or 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(level, threads=threads, write_checksum=1)
    with (
        open(output, "wb") as file,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_BLOCK) as tar,
    ):
        tar.addfile(_member(root.name, 0, directory=True))
        seen = set()
        for path in (MANIFEST, *files):
            for parent in reversed(Path(path).parents[:-1]):
                if parent not in seen:
                    seen.add(parent)
                    tar.addfile(_member(f"{root.name}/{parent.as_posix()}", 0, directory=True))
            with open(root / path, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                tar.addfile(_member(f"{root.name}/{path}", size, runs=path == root.name), content)


def _member(name: str, size: int, *, directory: bool = False, runs: bool = False) -> tarfile.TarInfo:
    if len(name) > 98:
        raise ModelError(f"{name}: too long a path for an archive; give the entry points shorter names")
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.uid, member.gid = size, 0, 0, 0
    member.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    member.mode = 0o755 if directory or runs else 0o644
    return member


def _checked_name(program: Program) -> str:
    if not _NAME.fullmatch(program.name) or program.name in _RESERVED:
        raise ModelError(f"{program.name!r} cannot name an archive's program: letters, digits, . _ - are for that")
    return program.name


def _task(program: Program) -> dict[str, Any]:
    task: dict[str, Any] = {"task": "call"} if program.task is None else program.task.to_json()
    if task["task"] not in TASKS:
        raise ModelError(
            f"{program.name}'s task is {task['task']}, which the runner cannot do yet; it does {', '.join(TASKS)}"
        )
    return task


def _pack_assets(task: dict[str, Any], root: Path) -> dict[str, Any]:
    """The task with the files that it names packed, and named by their places in the archive."""
    tokenizer = task.get("tokenizer")
    if tokenizer is None:
        return task
    (root / TOKENIZER).parent.mkdir()
    shutil.copyfile(tokenizer, root / TOKENIZER)
    return {**task, "tokenizer": TOKENIZER}


def split_targets(names: Sequence[str]) -> tuple[list[str], list[Target]]:
    """CPU levels, and the other targets. Raises `InputError` for a name that is neither."""
    from namedtensor import compilers
    from namedtensor.export import cpu

    levels, chips = [], []
    known = (*cpu.LEVELS, "native")
    for name in dict.fromkeys(names):
        platform, _, level = name.partition(":")
        if platform != "cpu":
            chips.append(compilers.target(name))
        elif level in known:
            levels.append(level)
        else:
            guess = closest(level, known)
            hint = f"did you mean 'cpu:{guess}'?" if guess else f"there are {', '.join(f'cpu:{k}' for k in known)}"
            raise InputError(f"there is no target {name!r}: {hint}")
    return levels, chips


def lower(program: Program) -> dict[str, LoweredEntry]:
    """Every variant, lowered for CPU.

    Lowered in a thread of its own: what no line of the model asks for is located at its caller's, and would differ
    with whoever calls."""
    for module in (threading, concurrent.futures.thread):
        source_info_util.register_exclusion(str(module.__file__))
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        return dict(pool.submit(program.lower, "cpu").result())


def _cpu(
    root: Path,
    lowered: dict[str, LoweredEntry],
    level: str,
    executables: Executables,
    on_step: Callable[[str], None],
) -> dict[str, Any]:
    target = f"cpu:{level}"
    paths = {}
    for variant, entry in lowered.items():
        on_step(f"{variant} for {target}")
        path = f"targets/cpu-{level}/{variant}.ntx"
        _write(root / path, executables.cpu(entry, level))
        paths[variant] = path
    return {"name": target, "executables": paths, "libraries": []}


def _accelerators(
    root: Path, program: Program, chips: list[Target], executables: Executables, on_step: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    if not chips:
        return
    on_step(", ".join(chip.name for chip in chips))

    def done(compiled: Compiled) -> None:
        on_step(f"{compiled.variant} for {compiled.target.name}")

    found = executables.accelerators(program, chips, done)
    for name, variants in found.items():
        paths = {}
        for compiled in variants:
            path = f"targets/{name.replace(':', '-')}/{compiled.variant}.executable"
            _write(root / path, compiled.serialized)
            paths[compiled.variant] = path
        libraries = sorted({library for compiled in variants for library in compiled.libraries})
        yield {"name": name, "executables": paths, "libraries": libraries}


def _outside() -> dict[str, Any]:
    """The entry of a plugin that is not packed."""
    left_out = {"the plugin": "whoever runs the archive says where it is"}
    return {
        "releases": {},
        "library": None,
        "libraries": [],
        "data": None,
        "host": [],
        "glibc": None,
        "left_out": left_out,
    }


def _weights(program: Program, root: Path, outside: Path | None) -> dict[str, Any]:
    path = root / WEIGHTS if outside is None else outside
    path.parent.mkdir(exist_ok=True)
    aliases = write_weights(program, path)
    return {"file": WEIGHTS if outside is None else None, **_digest(path), "aliases": aliases}


def _entries(program: Program, lowered: dict[str, LoweredEntry]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "buckets": {axis: list(sizes) for axis, sizes in entry.buckets.items()},
            "variants": [
                {
                    "name": variant.name,
                    "sizes": dict(variant.sizes),
                    "program": _program(variant.name),
                    "arguments": arguments(program, lowered[variant.name]),
                    "results": results(lowered[variant.name]),
                }
                for variant in program.variants(name)
            ],
        }
        for name, entry in program.entries.items()
    ]


def _program(variant: str) -> str:
    return f"programs/{variant}.mlirbc"


def _files(root: Path) -> list[str]:
    """Every file but the one that describes the others, sorted."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path != MANIFEST)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _digest(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _publish(packed: Path, output: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    packed.chmod(0o666 & ~umask)
    packed.replace(output)
