"""PyTorch's zip checkpoints, read without PyTorch: a pickle of a nested dict, and one record per storage.

Format: `torch/serialization.py` and "Serialization semantics" in PyTorch's notes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from namedtensor.checkpoint import _pickle, _zip
from namedtensor.checkpoint._blob import Blob
from namedtensor.checkpoint._entry import Entry
from namedtensor.checkpoint._formats import PLAIN, Format
from namedtensor.checkpoint._reject import quoted, reject

# The first bytes of what torch.save wrote before 1.6: a pickle of a magic number.
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
_MAX_NAME = 1024
_MAX_DEPTH = 32
# Views may share a storage: tied weights, a transpose beside the original. More than this is a bomb.
_MAX_SHARING = 4

_DTYPES: dict[str, Format] = {
    "bool": PLAIN["bool"],
    "uint8": PLAIN["u8"],
    "int8": PLAIN["i8"],
    "uint16": PLAIN["u16"],
    "int16": PLAIN["i16"],
    "uint32": PLAIN["u32"],
    "int32": PLAIN["i32"],
    "uint64": PLAIN["u64"],
    "int64": PLAIN["i64"],
    "float16": PLAIN["f16"],
    "bfloat16": PLAIN["bf16"],
    "float32": PLAIN["f32"],
    "float64": PLAIN["f64"],
    "complex64": PLAIN["c64"],
    "float8_e4m3fn": PLAIN["f8_e4m3"],
    "float8_e5m2": PLAIN["f8_e5m2"],
    "float8_e4m3fnuz": PLAIN["f8_e4m3fnuz"],
    "float8_e5m2fnuz": PLAIN["f8_e5m2fnuz"],
    "float8_e8m0fnu": PLAIN["f8_e8m0"],
}
_STORAGES: dict[str, Format] = {
    "BoolStorage": PLAIN["bool"],
    "ByteStorage": PLAIN["u8"],
    "CharStorage": PLAIN["i8"],
    "ShortStorage": PLAIN["i16"],
    "IntStorage": PLAIN["i32"],
    "LongStorage": PLAIN["i64"],
    "HalfStorage": PLAIN["f16"],
    "BFloat16Storage": PLAIN["bf16"],
    "FloatStorage": PLAIN["f32"],
    "DoubleStorage": PLAIN["f64"],
    "ComplexFloatStorage": PLAIN["c64"],
}
_FUNCTIONS = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
}


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle may use. It stands for itself; nothing is imported."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _StorageType:
    # None for bytes whose dtype the tensor tells.
    format: Format | None


@dataclass(frozen=True, slots=True)
class _Storage:
    record: _zip.Record
    format: Format | None


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a view of a storage. Offset and nbytes in bytes, strides in elements, None for C order."""

    record: _zip.Record
    format: Format
    offset: int
    nbytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None


def read(blob: Blob) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Tensors by dotted name: `{"state_dict": {"a.weight": t}}` holds `state_dict.a.weight`.

    Raises `CheckpointError`, which names it, for anything but nested dicts and lists of tensors and plain values.
    """
    return _Reader(blob).read(), {}


class _Reader:
    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.records = _zip.directory(blob)
        self.prefix = ""

    def fail(self, problem: str, fix: str | None = None) -> NoReturn:
        reject(self.blob.name, problem, fix)

    def read(self) -> dict[str, Entry]:
        roots = [name for name in self.records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            self.fail("is a zip file and not a PyTorch checkpoint: it needs one record 'NAME/data.pkl'")
        self.prefix = roots[0].removesuffix("data.pkl")
        if self.prefix + "constants.pkl" in self.records:
            self.fail("is a TorchScript archive", "save the module's state_dict() instead")
        order = self.records.get(self.prefix + "byteorder")
        if order is not None and (order.size > 16 or order.read(self.blob) != b"little"):
            self.fail("was saved on a machine of the other byte order", "save it again on a little-endian machine")
        pickle = self.records[roots[0]]
        # Before it is read: the directory's word for its size is as good as the file's length.
        if pickle.size > _pickle.MAX_BYTES:
            self.fail(f"its pickle takes {pickle.size:,} bytes, more than {_pickle.MAX_BYTES:,}")
        data = pickle.read(self.blob)
        root = _pickle.load(data, self.blob.name, resolve=self.resolve, call=self.call, persistent=self.storage)
        entries: dict[str, Entry] = {}
        sharing: dict[_View, int] = {}
        text = 0
        for name, view in self.flatten(root, 1000 + 2 * len(data)):
            text += len(name)
            if text > 65536 + 8 * len(data):
                self.fail("the names of its tensors are too long")
            if name in entries:
                self.fail(f"two tensors have the name {quoted(name)}")
            sharing[view] = view.nbytes + math.prod(view.shape) * view.format.block_bytes
            entries[name] = Entry(
                name, view.shape, view.format, self.blob, view.offset, view.nbytes, view.strides, view.record
            )
        if sum(sharing.values()) > 2 * _MAX_SHARING * self.blob.size:
            self.fail("its tensors are views that overlap more often than any model's")
        return entries

    def flatten(self, root: Any, limit: int) -> Iterator[tuple[str, _View]]:
        """Tensors with dotted names, depth first.

        `limit` is how many items there can be: each takes a byte of the pickle or more, unless containers that hold
        one another many times over make an exponential number of them.
        """
        if isinstance(root, _View) or not isinstance(root, dict | list | tuple):
            self.fail(f"holds one {_shown(root)} rather than a dict of tensors", "save a state_dict()")
        visits = 0
        pending: list[tuple[str, Any, int]] = [("", root, 0)]
        while pending:
            prefix, value, depth = pending.pop()
            if isinstance(value, _View):
                yield prefix, value
            elif isinstance(value, dict | list | tuple):
                if depth == _MAX_DEPTH:
                    self.fail(f"its dicts are nested more than {_MAX_DEPTH} deep")
                visits += 1 + len(value)
                if visits > limit:
                    self.fail("its pickle nests containers within themselves")
                dot = "." if depth else ""
                inner: list[tuple[str, Any, int]] = []
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    # Names are joined only for what may hold a tensor.
                    if isinstance(item, _View | dict | list | tuple):
                        name = str(key)
                        if len(prefix) + len(name) >= _MAX_NAME:
                            self.fail(f"the name of tensor {quoted(prefix + dot + name)} is too long")
                        inner.append((f"{prefix}{dot}{name}", item, depth + 1))
                pending.extend(reversed(inner))

    # -- what the pickle may refer to -----------------------------------------------------------------------------

    def resolve(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return _StorageType(None)
        if (module, name) in _FUNCTIONS:
            return _Global(module, name)
        shown = quoted(f"{module}.{name}")
        return self.fail(f"its pickle names {shown}, which no state dict needs", "it was not executed")

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        name = function.name if isinstance(function, _Global) else ""
        if name == "OrderedDict" and not arguments:
            return {}
        if name == "Size" and len(arguments) == 1 and isinstance(arguments[0], tuple):
            return arguments[0]
        if name == "device":
            return None
        if name == "_rebuild_tensor_v2" and 6 <= len(arguments) <= 7:
            return self.view(arguments, None)
        if name == "_rebuild_tensor_v3" and 7 <= len(arguments) <= 8 and isinstance(arguments[6], Format):
            return self.view(arguments, arguments[6])
        if name.startswith("_rebuild_parameter") and len(arguments) in (3, 4) and isinstance(arguments[0], _View):
            return arguments[0]
        return self.fail(f"its pickle calls {_shown(function)} in a way that torch.save does not")

    def storage(self, identity: Any) -> _Storage:
        if (
            not isinstance(identity, tuple)
            or len(identity) != 5
            or identity[0] != "storage"
            or not isinstance(identity[1], _StorageType)
            or not isinstance(identity[2], str)
            or type(identity[4]) is not int
        ):
            self.fail("its pickle refers to a storage in a way that torch.save does not")
        _, kind, key, _, count = identity
        record = self.records.get(f"{self.prefix}data/{key}")
        if record is None:
            self.fail(f"has no record for the storage {quoted(key)}")
        size = count * (kind.format.block_bytes if kind.format else 1)
        if size != record.size:
            self.fail(f"storage {quoted(key)} should have {size:,} bytes and has {record.size:,}")
        return _Storage(record, kind.format)

    def view(self, arguments: tuple[Any, ...], form: Format | None) -> _View:
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            self.fail("its pickle makes a tensor of something that is not a storage")
        form = form or storage.format
        if form is None or (storage.format is not None and form is not storage.format):
            self.fail("its pickle makes a tensor without a dtype, or with two")
        if not _sizes(shape) or not _sizes(strides) or not _sizes((offset,)) or len(shape) != len(strides):
            self.fail("its pickle makes a tensor whose shape, strides or offset are not sizes")
        where = f"a tensor in storage {quoted(storage.record.name)}"
        try:
            nbytes = form.nbytes(shape)
        except ValueError as error:
            self.fail(f"{where} {error}")
        item = form.block_bytes
        if not nbytes:
            return _View(storage.record, form, 0, 0, shape, None)
        span = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if (offset + span) * item > storage.record.size:
            self.fail(f"{where} reaches beyond its {storage.record.size:,} bytes")
        if not _is_c_order(shape, strides):
            if _overlaps(shape, strides):
                self.fail(f"{where} of shape {shape} repeats elements (strides {strides})", "save a .contiguous() copy")
            return _View(storage.record, form, offset * item, span * item, shape, strides)
        return _View(storage.record, form, offset * item, nbytes, shape, None)


def _sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)


def _is_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """True unless every axis steps over all that the faster axes span."""
    span = 1
    for step, size in sorted(zip(strides, shape, strict=True)):
        if size == 1:
            continue
        if step < span:
            return True
        span += step * (size - 1)
    return False


def _shown(value: Any) -> str:
    return quoted(f"{value.module}.{value.name}") if isinstance(value, _Global) else type(value).__name__.strip("_")
