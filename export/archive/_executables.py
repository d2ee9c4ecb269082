"""Where an archive's executables come from: compiled here and now, or earlier, by `namedtensor compile -o DIR`.

A build system compiles and packs in two steps, so that new weights pack again and compile nothing. For every target
there is a directory of executables with a `compiled.json`:

    version    1
    target     "cpu:x86-64-v3"
    compiler   {"jaxlib": "0.11.2"}
    variants   by name: file and sha256 of the executable, and `program`, the digest of the program that it was made
               from, and what the compiler reported; for accelerators the optimized program is beside the executable

Nothing in it says when or where it was made, or how long that took.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import jaxlib.version

from namedtensor import compilers
from namedtensor._errors import InputError
from namedtensor.compilers import Compiled
from namedtensor.lowering._cost import Cost

if TYPE_CHECKING:
    from namedtensor.compilers import OnProgress, Target
    from namedtensor.lowering import Program
    from namedtensor.lowering._lower import LoweredEntry

COMPILED = "compiled.json"
VERSION = 1
_LARGEST = 1 << 24
_PLANNED = (
    *("code_bytes", "weight_bytes", "state_bytes", "argument_bytes"),
    *("output_bytes", "alias_bytes", "temporary_bytes"),
)


class Executables(Protocol):
    """Gives the executables of a program: every variant for every target, by the target's name."""

    def __call__(
        self, program: Program, targets: Sequence[Target], on_progress: OnProgress
    ) -> dict[str, list[Compiled]]: ...


def fresh(program: Program, targets: Sequence[Target], on_progress: OnProgress) -> dict[str, list[Compiled]]:
    """Compiles what it is asked for."""
    return compilers.compile_for(program, targets, on_progress=on_progress)


class Prepared:
    """Takes what was compiled into directories; an executable of another program is refused."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Raises `InputError` where a directory holds nothing that was compiled, or another release compiled it."""
        self._found: dict[str, tuple[Path, dict[str, Any]]] = {}
        for directory in directories:
            for path, content in _compiled(directory):
                self._found[content["target"]] = (path.parent, content["variants"])

    def __call__(
        self, program: Program, targets: Sequence[Target], on_progress: OnProgress
    ) -> dict[str, list[Compiled]]:
        lowered: dict[str, dict[str, LoweredEntry]] = {}
        found: dict[str, list[Compiled]] = {}
        for target in targets:
            if target.platform not in lowered:
                lowered[target.platform] = compilers.lowered(program, target.platform)
            found[target.name] = []
            for entry in lowered[target.platform].values():
                directory, variant = self._variant(target.name, entry)
                found[target.name].append(_restored(directory, variant, entry, target))
        return found

    def _variant(self, target: str, entry: LoweredEntry) -> tuple[Path, dict[str, Any]]:
        if target not in self._found:
            there = ", ".join(self._found) or "nothing"
            raise InputError(f"{target} was not compiled: the given directories hold {there}")
        directory, variants = self._found[target]
        variant = variants.get(entry.name)
        if variant is None:
            _refuse(directory / COMPILED, f"it has no {entry.name}; compile the model as it is now")
        if variant["program"] != program_digest(entry):
            _refuse(directory / COMPILED, f"its {entry.name} is of another program; compile the model as it is now")
        return directory, variant


def directory_of(root: Path, target: str) -> Path:
    """Where the executables for a target go."""
    return root / target.replace(":", "-")


def program_digest(entry: LoweredEntry) -> str:
    """SHA-256 of a lowered program, wherever its model's lines stand."""
    return hashlib.sha256(entry.text(locations=False).encode()).hexdigest()


def save(root: Path, program: Program, found: Mapping[str, Sequence[Compiled]]) -> None:
    """Write what was compiled, all variants of each target, for `archive.build(..., compiled=[root])`."""
    lowered: dict[str, dict[str, LoweredEntry]] = {}
    for compiled in found.values():
        target = compiled[0].target
        if target.platform not in lowered:
            lowered[target.platform] = compilers.lowered(program, target.platform)
        described = {
            one.variant: {
                "program": program_digest(lowered[target.platform][one.variant]),
                "cost": dataclasses.asdict(one.cost),
                **{name: getattr(one, name) for name in _PLANNED},
            }
            for one in compiled
        }
        files = {one.variant: (f"{one.variant}.{one.suffix}", one.serialized) for one in compiled}
        beside = {f"{one.variant}.hlo": one.hlo for one in compiled if one.hlo}
        _save(root, target.name, files, described, beside)


def _save(
    root: Path,
    target: str,
    files: dict[str, tuple[str, bytes]],
    described: dict[str, dict[str, Any]],
    beside: dict[str, str],
) -> None:
    directory = directory_of(root, target)
    directory.mkdir(parents=True, exist_ok=True)
    # Whoever finds this file finds the others complete.
    (directory / COMPILED).unlink(missing_ok=True)
    for name, data in files.values():
        (directory / name).write_bytes(data)
    for name, text in beside.items():
        (directory / name).write_text(text, encoding="utf-8")
    variants = {
        variant: {"file": name, "sha256": hashlib.sha256(data).hexdigest(), **described[variant]}
        for variant, (name, data) in files.items()
    }
    content = {"version": VERSION, "target": target, "compiler": _release(), "variants": variants}
    partial = directory / f".{COMPILED}"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(directory / COMPILED)


def _release() -> dict[str, str]:
    return {"jaxlib": jaxlib.version.__version__}


def _compiled(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The descriptions in a directory that was written to, or in one target's own."""
    paths = [root / COMPILED] if (root / COMPILED).is_file() else sorted(root.glob(f"*/{COMPILED}"))
    if not paths:
        raise InputError(f"{root}: there is nothing that `namedtensor compile -o` wrote")
    for path in paths:
        yield path, _described(path)


def _described(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            _refuse(path, "it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _refuse(path, getattr(error, "strerror", None) or "it is not JSON")
    if not isinstance(content, dict) or content.get("version") != VERSION:
        _refuse(path, f"it is not version {VERSION} of a description of executables")
    if content.get("compiler") != _release():
        _refuse(path, f"another release compiled it; this is jaxlib {jaxlib.version.__version__}, so compile again")
    variants = content.get("variants")
    if not isinstance(content.get("target"), str) or not isinstance(variants, dict):
        _refuse(path, "it names no target or no variants")
    for name, variant in variants.items():
        wanted = ("file", "sha256", "program")
        if not isinstance(variant, dict) or not all(isinstance(variant.get(field), str) for field in wanted):
            _refuse(path, f"{name!r} lacks one of {', '.join(wanted)}")
        if Path(variant["file"]).name != variant["file"]:
            _refuse(path, f"{variant['file']!r} is not a file beside it")
    return content


def _executable(directory: Path, variant: dict[str, Any]) -> bytes:
    path = directory / variant["file"]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != variant["sha256"]:
        _refuse(path, "it is not the file that was compiled")
    return data


def _restored(directory: Path, variant: dict[str, Any], entry: LoweredEntry, chip: Target) -> Compiled:
    try:
        hlo = directory / f"{entry.name}.hlo"
        return Compiled(
            variant=entry.name,
            target=chip,
            serialized=_executable(directory, variant),
            hlo="" if chip.platform == "cpu" else hlo.read_text(encoding="utf-8"),
            cost=Cost(**{name: int(value) for name, value in variant["cost"].items()}),
            seconds=0.0,
            peak_compiler_bytes=0,
            **{name: int(variant[name]) for name in _PLANNED},
        )
    except (KeyError, TypeError, AttributeError, ValueError, FileNotFoundError) as error:
        raise InputError(
            f"{directory / COMPILED}: cannot be used: {entry.name} is not described ({error!r})"
        ) from error


def _refuse(path: Path, problem: str) -> NoReturn:
    raise InputError(f"{path}: cannot be used: {problem}")
