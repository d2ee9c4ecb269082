"""From a program to an archive (docs/archive-format.md): the directory, and the file that it is packed into."""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxlib.version
from jax._src import source_info_util

import namedtensor
from namedtensor import _kernels
from namedtensor._errors import InputError, ModelError, closest
from namedtensor.export.archive._compress import MANIFEST, compress, files_in
from namedtensor.export.archive._compress import RUNNER as DYNAMIC_RUNNER
from namedtensor.export.archive._executables import Executables, Fresh, Prepared
from namedtensor.export.archive._signature import arguments, results
from namedtensor.export.archive._weights import write_weights

if TYPE_CHECKING:
    from namedtensor.compilers import Compiled, Target
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry

VERSION = 1
WEIGHTS = "weights/model.safetensors"
TOKENIZER = "assets/tokenizer.json"
# Tasks that the runner knows (runner/tasks).
TASKS = ("classify",)

RUNNER = Path(namedtensor.__file__).with_name("_native") / "runner"
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
    on_step: Callable[[str], None] = lambda step: None,
) -> Report:
    """Compile a program for all `targets`, and pack it with its weights and the runner into `output`, a .tar.zst.

    The same program, weights, targets and release give the same bytes. `output` appears when it is complete, or not
    at all. `weights_outside` writes the weights to that file instead, to be given to the program when it starts.
    `compiled` are directories of executables that `namedtensor compile` wrote: nothing is compiled then. Without
    `plugins` those of accelerators stay outside, too. `on_step` is told what is done next.

    Raises `ModelError` for a program that the runner cannot run, or cannot be compiled, `InputError` for a target that
    does not exist, `CheckpointError` where weights cannot be read.
    """
    name = _checked_name(program)
    task = _task(program)
    levels, chips = split_targets(targets)
    executables: Executables = Prepared(compiled) if compiled else Fresh()
    for runner, wanted in ((RUNNER, True), (PLUGIN_RUNNER, bool(chips))):
        if wanted and not runner.is_file():
            raise ModelError(f"the {runner.name} of archives was not built: run scripts/build-runner (needs cargo)")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        root = Path(temporary) / name
        root.mkdir()
        shutil.copyfile(RUNNER, root / name)
        task = _pack_assets(task, root)
        listed = []
        on_step("portable programs")
        lowered = lower(program)
        for variant, data in portable(program, lowered).items():
            _write(root / _program(variant), data)
        for level in levels:
            listed.append(_cpu(root, lowered, level, executables, on_step))
        listed += _accelerators(root, program, chips, executables, on_step)
        packed_plugins = _plugins(root, listed, plugins, on_step)
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
            "plugins": packed_plugins,
            "weights": weights,
            "files": _digests(root, weights),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (root / MANIFEST).write_text(text, encoding="utf-8")
        on_step("compression")
        packed = Path(temporary) / "archive"
        compress(root, packed)
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


def portable(program: Program, lowered: dict[str, LoweredEntry]) -> dict[str, bytes]:
    """Every variant as StableHLO for any of XLA's compilers: without the kernels that only the CPU has."""
    programs = {variant: entry.bytecode() for variant, entry in lowered.items()}
    if any(_kernels.TARGET.encode() in data for data in programs.values()):
        programs = {variant: entry.bytecode() for variant, entry in lower(program, kernels=False).items()}
    return programs


def lower(program: Program, *, kernels: bool = True) -> dict[str, LoweredEntry]:
    """Every variant, lowered for CPU; without `kernels` every contraction is XLA's.

    Lowered in a thread of its own: what no line of the model asks for is located at its caller's, and would differ
    with whoever calls."""
    for module in (threading, concurrent.futures.thread):
        source_info_util.register_exclusion(str(module.__file__))

    def lowered() -> dict[str, LoweredEntry]:
        with contextlib.nullcontext() if kernels else _kernels.nowhere():
            return dict(program.lower("cpu"))

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lowered).result()


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
    return {"name": target, "architecture": None, "executables": paths, "libraries": []}


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
        architecture = next(chip.architecture for chip in chips if chip.name == name)
        yield {"name": name, "architecture": architecture, "executables": paths, "libraries": libraries}


def _plugins(root: Path, listed: list[dict[str, Any]], inside: bool, on_step: Callable[[str], None]) -> dict[str, Any]:
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
    for platform, libraries in called.items():
        on_step(f"the plugin of {platform}")
        packed[platform] = pack(platform, libraries, root, inside=inside)
    return packed


def _weights(program: Program, root: Path, outside: Path | None) -> dict[str, Any]:
    path = root / WEIGHTS if outside is None else outside
    path.parent.mkdir(exist_ok=True)
    written = write_weights(program, path)
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
