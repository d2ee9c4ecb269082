"""XLA's own message types, as the installed jaxlib defines them.

jaxlib serializes executables as protocol buffers and ships no Python classes for them; but its library holds the schema
of each file of messages (a `FileDescriptorProto`), because the C++ runtime of protocol buffers needs it. They are read
from there, so the schema is always that of the release which writes the messages.
"""

from __future__ import annotations

import functools
import mmap
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jaxlib
import jaxlib.version
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from namedtensor._errors import ModelError, fail
from namedtensor._home import cache_directory

# What is read from executables and topologies; their imports follow.
_ROOTS = (
    "xla/service/cpu/executable.proto",
    "xla/pjrt/proto/topology_description.proto",
    "xla/pjrt/plugin/xla_cpu/cpu_topology.proto",
)
# Messages of protocol buffers themselves, which their own Python package defines.
_OWN = "google/protobuf/"

# The field `name`, first of a FileDescriptorProto: its tag, its length, and a path that ends in .proto.
_NAME = re.compile(rb"\x0a([\x08-\x7f])((?:google|stream_executor|tsl|xla)[A-Za-z0-9_/.]{3,120}?\.proto)")
_LARGEST = 1 << 20


def message(name: str) -> type[Message]:
    """The class of a message such as `xla.cpu.CompilationResultProto`. Raises `ModelError` where jaxlib has none."""
    try:
        return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))
    except KeyError:
        fail(
            f"the installed jaxlib ({jaxlib.version.__version__}) defines no message {name}",
            fix="install the release of jaxlib that namedtensor asks for",
            kind=ModelError,
        )


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    files = {file.name: file for file in _descriptors().file}
    pool = descriptor_pool.DescriptorPool()
    for name in _with_imports(files):
        pool.Add(files[name])
    return pool


def _descriptors() -> descriptor_pb2.FileDescriptorSet:
    """From the cache, or from the library."""
    library = Path(jaxlib.__file__).with_name("libjax_common.so")
    directory = cache_directory()
    kept = None
    if directory is not None:
        stat = library.stat()
        kept = directory / "schema" / f"{jaxlib.version.__version__}-{stat.st_size:x}-{stat.st_mtime_ns:x}.pb"
        try:
            found = descriptor_pb2.FileDescriptorSet.FromString(kept.read_bytes())
            if {file.name for file in found.file} >= set(_ROOTS):
                return found
        except (OSError, DecodeError):
            pass
    found = read_descriptors(library)
    if kept is not None:
        _write(kept, found.SerializeToString())
    return found


def read_descriptors(library: Path) -> descriptor_pb2.FileDescriptorSet:
    """The files of messages that reading executables takes, in an order in which each follows its imports.

    Raises `ModelError` where the library does not hold them.
    """
    files: dict[str, Any] = {}
    with open(library, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _NAME.finditer(data):
            if match.group(1)[0] != len(match.group(2)):
                continue
            name = match.group(2).decode()
            if name in files:
                continue
            try:
                file = descriptor_pb2.FileDescriptorProto.FromString(data[match.start() : _end(data, match.start())])
            except (DecodeError, IndexError):
                continue
            if file.name == name:
                files[name] = file
    _add_own(files)
    for root in _ROOTS:
        if root not in files:
            fail(
                f"{library.name} of the installed jaxlib ({jaxlib.version.__version__}) holds no {root}",
                fix="install the release of jaxlib that namedtensor asks for",
                kind=ModelError,
            )
    return descriptor_pb2.FileDescriptorSet(file=[files[name] for name in _with_imports(files)])


def _end(data: mmap.mmap, start: int) -> int:
    """Where a FileDescriptorProto stops: its fields have numbers 1 to 14 and are integers or of given length."""
    end = position = start
    limit = min(len(data), start + _LARGEST)
    while position < limit:
        tag, position = varint(data, position)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= 14 or kind not in (0, 2):
            break
        value, position = varint(data, position)
        if kind == 2:
            position += value
        if position > limit:
            break
        end = position
    return end


def varint(data: Any, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise IndexError


def _add_own(files: dict[str, Any]) -> None:
    from google.protobuf import any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2

    for module in (any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2, descriptor_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files[file.name] = file


def _with_imports(files: dict[str, Any]) -> list[str]:
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in files:
            fail(f"jaxlib {jaxlib.version.__version__} lacks the messages of {name}", kind=ModelError)
        for imported in files[name].dependency:
            visit(imported)
        order[name] = None

    for root in _ROOTS:
        visit(root)
    return list(order)


def _write(path: Path, data: bytes) -> None:
    """Into the cache, in one step; a cache that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(data)
        os.replace(partial.name, path)
    except OSError:
        return
