"""GGUF, versions 2 and 3: metadata, descriptions of tensors, then the tensors, each aligned.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from typing import Any, NoReturn

import numpy as np

from namedtensor.checkpoint._blob import TRUNCATED, Blob
from namedtensor.checkpoint._entry import Entry
from namedtensor.checkpoint._formats import PLAIN, Format
from namedtensor.checkpoint._reject import quoted, reject

MAGIC = b"GGUF"
# A vocabulary of a quarter million tokens with its merges takes about 15 MB.
_MAX_HEADER = 128 << 20
_MAX_TEXTS = 1 << 22
_MAX_TENSOR_RANK = 4
_FIRST_READ = 256 << 10

_F32 = np.dtype(np.float32)


def _block(name: str, elements: int, nbytes: int, *, decoded: bool = False) -> Format:
    return Format(name, _F32 if decoded else None, elements, nbytes)


_TYPES: dict[int, Format] = {
    0: PLAIN["f32"],
    1: PLAIN["f16"],
    2: _block("q4_0", 32, 18, decoded=True),
    3: _block("q4_1", 32, 20),
    6: _block("q5_0", 32, 22),
    7: _block("q5_1", 32, 24),
    8: _block("q8_0", 32, 34, decoded=True),
    10: _block("q2_k", 256, 84),
    11: _block("q3_k", 256, 110),
    12: _block("q4_k", 256, 144),
    13: _block("q5_k", 256, 176),
    14: _block("q6_k", 256, 210),
    16: _block("iq2_xxs", 256, 66),
    17: _block("iq2_xs", 256, 74),
    18: _block("iq3_xxs", 256, 98),
    19: _block("iq1_s", 256, 50),
    20: _block("iq4_nl", 32, 18),
    21: _block("iq3_s", 256, 110),
    22: _block("iq2_s", 256, 82),
    23: _block("iq4_xs", 256, 136),
    24: PLAIN["i8"],
    25: PLAIN["i16"],
    26: PLAIN["i32"],
    27: PLAIN["i64"],
    28: PLAIN["f64"],
    29: _block("iq1_m", 256, 56),
    30: PLAIN["bf16"],
    34: _block("tq1_0", 256, 54),
    35: _block("tq2_0", 256, 66),
    39: _block("mxfp4", 32, 17),
}
#: Every element format that a file can have.
FORMATS = tuple(_TYPES.values())
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: dict[int, np.dtype[Any]] = {
    code: np.dtype(name)
    for code, name in {
        0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8", 12: "<f8"
    }.items()
}  # fmt: skip


def read(blob: Blob) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Tensors, their axes in numpy's order (the file has the fastest first), and metadata.

    Metadata values are Python numbers, bools and strings; arrays are numpy arrays, or lists of strings.
    Raises `CheckpointError`.
    """
    return _Reader(blob).read()


class _Reader:
    """A cursor over the header, which fetches more of the file as it goes: nothing says how long the header is."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.data = b""
        self.at = 0
        self.texts = 0

    def fail(self, problem: str, fix: str | None = None) -> NoReturn:
        reject(self.blob.name, problem, fix)

    def read(self) -> tuple[dict[str, Entry], dict[str, Any]]:
        magic, version, tensors, pairs = struct.unpack("<4sIQQ", self.take(24))
        if magic != MAGIC or version not in (2, 3):
            if int.from_bytes(version.to_bytes(4, "big"), "little") in (2, 3):
                self.fail("is a big-endian GGUF file", "convert it to little-endian")
            self.fail(f"is GGUF version {version}, and 2 and 3 are implemented", "convert it with a current tool")
        if tensors > self.blob.size // 24 or pairs > self.blob.size // 13:
            self.fail(
                f"claims {tensors:,} tensors and {pairs:,} metadata values in {self.blob.size:,} bytes", TRUNCATED
            )
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self.name("metadata")
            if key in metadata:
                self.fail(f"metadata {quoted(key)} stands twice")
            metadata[key] = self.value(self.number("<I"), key)
        if type(metadata.get("split.count")) is int and metadata["split.count"] > 1:
            self.fail(f"is one of {metadata['split.count']} parts", "merge them with llama-gguf-split --merge")
        described = self.descriptions(tensors)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            self.fail(f"has the alignment {quoted(str(alignment))}, which is not a power of two")
        return self.place(described, alignment), metadata

    def descriptions(self, count: int) -> dict[str, tuple[tuple[int, ...], Format, int]]:
        found: dict[str, tuple[tuple[int, ...], Format, int]] = {}
        for _ in range(count):
            name = self.name("tensor")
            if name in found:
                self.fail(f"tensor {quoted(name)} stands twice")
            rank = self.number("<I")
            if rank > _MAX_TENSOR_RANK:
                self.fail(f"tensor {quoted(name)} has {rank} axes, more than {_MAX_TENSOR_RANK}")
            shape = struct.unpack(f"<{rank}Q", self.take(8 * rank))[::-1]
            code, offset = self.number("<I"), self.number("<Q")
            if code not in _TYPES:
                self.fail(f"tensor {quoted(name)} has type {code}, which is not known")
            found[name] = (shape, _TYPES[code], offset)
        return found

    def place(self, described: dict[str, tuple[tuple[int, ...], Format, int]], alignment: int) -> dict[str, Entry]:
        """Tensors with their places checked: in bounds, aligned, with nothing but padding between them."""
        data = _align(self.at, alignment)
        entries: dict[str, Entry] = {}
        for name, (shape, form, offset) in described.items():
            try:
                nbytes = form.nbytes(shape)
            except ValueError as error:
                self.fail(f"tensor {quoted(name)} {error}")
            entries[name] = Entry(name, shape, form, self.blob, data + offset, nbytes)
        end = data
        for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
            if entry.offset != _align(end - data, alignment) + data:
                what = "overlaps the one before it" if entry.offset < end else "does not follow the one before it"
                self.fail(f"tensor {quoted(entry.name)} {what} (at byte {entry.offset:,}, expected {end:,})")
            end = entry.offset + entry.nbytes
        if entries and end > self.blob.size:
            self.fail(f"its tensors end at byte {end:,}, the file at {self.blob.size:,}", TRUNCATED)
        return entries

    # -- values -------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            if end > self.blob.size:
                self.fail("ends inside its header", TRUNCATED)
            if end > _MAX_HEADER:
                self.fail(f"has a header of more than {_MAX_HEADER:,} bytes")
            wanted = min(self.blob.size, max(end, 2 * len(self.data), _FIRST_READ))
            self.data += self.blob.read(len(self.data), wanted - len(self.data))
        self.at = end
        return self.data[end - count : end]

    def number(self, code: str) -> int:
        return int(struct.unpack(code, self.take(struct.calcsize(code)))[0])

    def name(self, what: str) -> str:
        length = self.number("<Q")
        if not 0 < length <= 65535:
            self.fail(f"has a {what} name of {length:,} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            self.fail(f"has a {what} name that is not UTF-8")

    def text(self) -> str:
        self.texts += 1
        if self.texts > _MAX_TEXTS:
            self.fail(f"has more than {_MAX_TEXTS:,} texts in its metadata")
        # Vocabularies hold pieces of characters, which must come out as they went in.
        return self.take(self.number("<Q")).decode(errors="surrogateescape")

    def value(self, code: int, key: str) -> Any:
        if code == _STRING:
            return self.text()
        if code == _ARRAY:
            return self.array(key)
        if code not in _NUMBERS:
            self.fail(f"metadata {quoted(key)} has type {code}, which is not known")
        return self.numbers(code, 1, key)[0].item()

    def array(self, key: str) -> Any:
        code, count = self.number("<I"), self.number("<Q")
        if code == _STRING:
            if count > (self.blob.size - self.at) // 8:
                self.fail(f"metadata {quoted(key)} claims {count:,} texts", TRUNCATED)
            return [self.text() for _ in range(count)]
        if code not in _NUMBERS:
            self.fail(f"metadata {quoted(key)} is an array of type {code}, which is not known")
        return self.numbers(code, count, key)

    def numbers(self, code: int, count: int, key: str) -> Any:
        raw = self.take(count * _NUMBERS[code].itemsize)
        if code == _BOOL and raw.strip(b"\0\1"):
            self.fail(f"metadata {quoted(key)} has a bool that is neither 0 nor 1")
        return np.frombuffer(raw, _NUMBERS[code]).copy()


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
