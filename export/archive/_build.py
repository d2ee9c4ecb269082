"""From a program to an archive (docs/archive-format.md): the directory, and the file that it is packed into."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxlib.version

import namedtensor
from namedtensor import compilers
from namedtensor._errors import ModelError
from namedtensor.compilers import Progress
from namedtensor.export.archive._compress import MANIFEST, compress, files_in
from namedtensor.export.archive._compress import RUNNER as DYNAMIC_RUNNER
from namedtensor.export.archive._executables import Executables, Prepared, fresh
from namedtensor.export.archive._signature import arguments, results
from namedtensor.export.archive._weights import write_weights
from namedtensor.tasks import Call

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled, OnProgress
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry

VERSION = 1
WEIGHTS = "weights/model.safetensors"
TOKENIZER = "assets/tokenizer.json"
# Tasks that the runner knows (runner/tasks).
TASKS = ("call", "classify", "embed", "generate")

RUNNER = Path(namedtensor.__file__).with_name("_native") / "runner"
# Less than half as large: it downloads no weights, and knows these tasks alone.
LEAN_RUNNER = RUNNER.with_name("runner-lean")
LEAN_TASKS = ("call", "classify")
# The one that can load plugins; linked with glibc.
PLUGIN_RUNNER = RUNNER.with_name("runner-glibc")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = (MANIFEST, "assets", "plugins", "programs", "targets", "weights")


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
    plugins: bool = True,
    on_progress: OnProgress = lambda progress: None,
) -> Report:
    """Compile a program for all `targets`, and pack it with its weights and the runner into `output`, a .tar.zst.

    The same program, weights, targets and release give the same bytes. `output` appears when it is complete, or not
    at all. `weights_outside` writes the weights to that file instead, to be given to the program when it starts.
    `compiled` are directories of executables that `namedtensor compile` wrote: nothing is compiled then. Without
    `plugins` those of accelerators stay outside, too. `on_progress` is called as targets are compiled, and as weights
    and archive are written.

    Raises `ModelError` for a program that the runner cannot run, or cannot be compiled, `InputError` for a target that
    does not exist, `CheckpointError` where weights cannot be read.
    """
    name = _checked_name(program)
    task = _task(program)
    wanted_targets = list({one.name: one for one in map(compilers.target, targets)}.values())
    executables: Executables = Prepared(compiled) if compiled else fresh
    accelerated = any(target.platform != "cpu" for target in wanted_targets)
    runner = _runner(task, downloads=weights_outside is not None)
    for wanted in (runner, PLUGIN_RUNNER) if accelerated else (runner,):
        if not wanted.is_file():
            raise ModelError(f"the {wanted.name} of archives was not built: run scripts/build-runner (needs cargo)")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        root = Path(temporary) / name
        root.mkdir()
        shutil.copyfile(runner, root / name)
        task = _pack_assets(task, root)
        programs = compilers.portable(program)
        for variant, entry in programs.items():
            _write(root / _program(variant), entry.bytecode())
        found = executables(program, wanted_targets, on_progress)
        listed = [_target(root, name, variants) for name, variants in found.items()]
        packed_plugins = _plugins(root, listed, plugins, on_progress)
        outside = None if weights_outside is None else Path(temporary) / "outside.safetensors"
        weights = _weights(program, root, outside, on_progress)
        manifest = {
            "version": VERSION,
            "name": name,
            "compiler": {"jaxlib": jaxlib.version.__version__},
            "task": task,
            "entries": _entries(program, programs),
            "targets": listed,
            "plugins": packed_plugins,
            "weights": weights,
            "files": _digests(root, weights),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (root / MANIFEST).write_text(text, encoding="utf-8")
        packed = Path(temporary) / "archive"
        compress(root, packed, on_progress)
        files = {path: (root / path).stat().st_size for path in (MANIFEST, *files_in(root))}
        if outside is not None and weights_outside is not None:
            os.replace(outside, weights_outside)
        _publish(packed, output)
    return Report(output, output.stat().st_size, files, weights_outside)


def _checked_name(program: Program) -> str:
    if not _NAME.fullmatch(program.name) or program.name in _RESERVED:
        raise ModelError(f"{program.name!r} cannot name an archive's program: letters, digits, . _ - are for that")
    return program.name


def _task(program: Program) -> dict[str, Any]:
    task: dict[str, Any] = (Call() if program.task is None else program.task).to_json()
    if task["task"] not in TASKS:
        raise ModelError(
            f"{program.name}'s task is {task['task']}, which the runner cannot do yet; it does {', '.join(TASKS)}"
        )
    return task


def _runner(task: dict[str, Any], *, downloads: bool) -> Path:
    """The smallest static runner that does all that an archive can be asked for."""
    return LEAN_RUNNER if task["task"] in LEAN_TASKS and not downloads else RUNNER


def _pack_assets(task: dict[str, Any], root: Path) -> dict[str, Any]:
    """The task with the files that it names packed, and named by their places in the archive."""
    tokenizer = task.get("tokenizer")
    if tokenizer is None:
        return task
    (root / TOKENIZER).parent.mkdir()
    shutil.copyfile(tokenizer, root / TOKENIZER)
    return {**task, "tokenizer": TOKENIZER}


def _target(root: Path, name: str, variants: Sequence[Compiled]) -> dict[str, Any]:
    """Write a target's executables. Returns: its entry in `bundle.json`."""
    paths = {}
    for compiled in variants:
        path = f"targets/{name.replace(':', '-')}/{compiled.variant}.{compiled.suffix}"
        _write(root / path, compiled.serialized)
        paths[compiled.variant] = path
    libraries = sorted({library for compiled in variants for library in compiled.libraries})
    return {
        "name": name,
        "architecture": variants[0].target.architecture,
        "executables": paths,
        "libraries": libraries,
    }


def _plugins(root: Path, listed: list[dict[str, Any]], inside: bool, on_progress: OnProgress) -> dict[str, Any]:
    """What runs the executables of accelerators, by platform."""
    from namedtensor.export.archive._plugins import pack

    called: dict[str, set[str]] = {}
    for target in listed:
        platform = target["name"].partition(":")[0]
        if platform != "cpu":
            called.setdefault(platform, set()).update(target["libraries"])
    if not called:
        return {}
    (root / DYNAMIC_RUNNER).parent.mkdir()
    shutil.copyfile(PLUGIN_RUNNER, root / DYNAMIC_RUNNER)
    packed = {}
    for done, (platform, libraries) in enumerate(called.items()):
        on_progress(Progress("plugins", done, len(called), platform))
        packed[platform] = pack(platform, libraries, root, inside=inside)
    on_progress(Progress("plugins", len(called), len(called)))
    return packed


def _weights(program: Program, root: Path, outside: Path | None, on_progress: OnProgress) -> dict[str, Any]:
    path = root / WEIGHTS if outside is None else outside
    path.parent.mkdir(exist_ok=True)
    written = write_weights(program, path, lambda done, total: on_progress(Progress("weights", done, total)))
    return {
        "file": WEIGHTS if outside is None else None,
        "bytes": written.bytes,
        "sha256": written.sha256,
        "aliases": written.aliases,
    }


def _digests(root: Path, weights: dict[str, Any]) -> dict[str, Any]:
    """Size and digest of every file; the weights' were taken as they were written."""
    known = {weights["file"]: {"bytes": weights["bytes"], "sha256": weights["sha256"]}}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        paths = files_in(root)
        found = pool.map(lambda path: known.get(path) or _digest(root / path), paths)
        return dict(zip(paths, found, strict=True))


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
