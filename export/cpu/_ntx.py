"""The file that the native CPU device loads: machine code, the plan that calls it, constants (docs/ntx-format.md)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from namedtensor.export.cpu._compile import Compiled, compile_entry, compile_module
from namedtensor.export.cpu._link import link
from namedtensor.export.cpu._plan import make_plan
from namedtensor.lowering._lower import LoweredEntry

# As PNG's: a first byte that is no text, and line ends that show what a careless transfer did to the file.
MAGIC = b"\x89NTX\r\n\x1a\n"
VERSION = 1
_HEADER = struct.Struct("<8sII6Q")
_ALIGNMENT = 64


@dataclass(frozen=True)
class CpuExecutable:
    """A program for the native CPU device."""

    #: The file's contents.
    data: bytes
    level: str
    #: Bytes of machine code and its read-only data.
    code: int
    #: Bytes of memory that a call needs besides its arguments and results.
    temporaries: int
    #: How many steps of each kind a call takes, those within loops and branches counted once.
    steps: dict[str, int]


def build(entry: LoweredEntry, level: str) -> CpuExecutable:
    """Compile a variant, lowered for CPU, into a file for the native device.

    `level` is `x86-64-v2`, `x86-64-v3`, `x86-64-v4`, or `native` for this machine's processor. The same program gives
    the same bytes. Raises `ModelError` where the native device cannot run the program, with the operation and its line.
    """
    return _file(compile_entry(entry, level), entry.name)


def build_module(module: Any, name: str, level: str) -> CpuExecutable:
    """As `build`, from the StableHLO module of a variant that was lowered for CPU."""
    return _file(compile_module(module, name, level), name)


def _file(compiled: Compiled, name: str) -> CpuExecutable:
    objects = [(object.name, object.contents) for object in compiled.result.object_files]
    image = link(objects, name)
    plan = make_plan(compiled, image, name)
    text = json.dumps(plan.json, separators=(",", ":"), sort_keys=True).encode()
    data = _pack(text, bytes(image.data), bytes(plan.constants))
    return CpuExecutable(data, compiled.level, len(image.data), plan.temporaries, _count(plan.json["steps"]))


def _pack(*sections: bytes) -> bytes:
    body = bytearray(_HEADER.size)
    places: list[int] = []
    for section in sections:
        body += bytes(-len(body) % _ALIGNMENT)
        places += (len(body), len(section))
        body += section
    body[: _HEADER.size] = _HEADER.pack(MAGIC, VERSION, len(sections), *places)
    return bytes(body)


def _count(steps: list[dict[str, object]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for step in steps:
        inner = [step.get("condition", []), step.get("body", []), *step.get("branches", [])]  # type: ignore[misc]
        for kind, count in (item for steps in inner for item in _count(steps).items()):
            found[kind] = found.get(kind, 0) + count
        kind = str(step["step"])
        found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))
