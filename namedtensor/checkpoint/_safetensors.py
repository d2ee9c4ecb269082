"""The safetensors format: a JSON header that says where each tensor lies, then the tensors, without holes.

Specification: https://github.com/huggingface/safetensors#format
"""

import json
import re
from typing import Any, NoReturn

from namedtensor.checkpoint._blob import TRUNCATED, Blob
from namedtensor.checkpoint._entry import Entry
from namedtensor.checkpoint._formats import PLAIN, Format
from namedtensor.checkpoint._reject import quoted, reject

# The bound of the reference implementation.
MAX_HEADER = 100_000_000
# Of one tensor's description. Three short fields, at most 32 sizes.
_MAX_ENTRY = 4096
_JSON = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")

_FORMATS: dict[str, Format] = {
    name: PLAIN[name.lower()]
    for name in ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64")
} | {
    "F8_E4M3": PLAIN["f8_e4m3"],
    "F8_E5M2": PLAIN["f8_e5m2"],
    "F8_E4M3FNUZ": PLAIN["f8_e4m3fnuz"],
    "F8_E5M2FNUZ": PLAIN["f8_e5m2fnuz"],
    "F8_E8M0": PLAIN["f8_e8m0"],
}


def read(blob: Blob) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors and metadata from the header; reads no tensor. Raises `CheckpointError` for a file that breaks a rule."""
    if blob.size < 10:
        reject(blob.name, f"{blob.size} bytes are too few for a safetensors file", TRUNCATED)
    length = int.from_bytes(blob.read(0, 8), "little")
    if length > MAX_HEADER:
        reject(blob.name, f"claims a header of {length:,} bytes, more than {MAX_HEADER:,}", "is it a safetensors file?")
    if length > blob.size - 8:
        reject(blob.name, f"claims a header of {length:,} bytes and has {blob.size:,} in all", TRUNCATED)
    try:
        text = blob.read(8, length).decode()
    except UnicodeDecodeError as error:
        reject(blob.name, f"the header is not UTF-8 at byte {8 + error.start}")
    described, metadata = _Header(blob.name, text).parse()
    data = 8 + length
    entries: dict[str, Entry] = {}
    for name, (form, shape, begin, end) in described.items():
        try:
            wanted = form.nbytes(shape)
        except ValueError as error:
            reject(blob.name, f"tensor {quoted(name)} {error}")
        if end - begin != wanted:
            reject(
                blob.name,
                f"tensor {quoted(name)} has {end - begin:,} bytes, its shape {shape} in {form.name} takes {wanted:,}",
            )
        entries[name] = Entry(name, shape, form, blob, data + begin, wanted)
    _check_tiling(blob, entries, data)
    return entries, metadata


def _check_tiling(blob: Blob, entries: dict[str, Entry], data: int) -> None:
    """The tensors fill what follows the header exactly: in bounds, no overlap, no hole, nothing after the last."""
    at, before = data, "the header"
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != at:
            what = "overlaps" if entry.offset < at else f"leaves a hole of {entry.offset - at:,} bytes after"
            reject(blob.name, f"tensor {quoted(entry.name)} {what} {before}")
        at, before = at + entry.nbytes, f"tensor {quoted(entry.name)}"
    if at > blob.size:
        reject(blob.name, f"its tensors end at byte {at:,}, the file at {blob.size:,}", TRUNCATED)
    if at < blob.size:
        reject(blob.name, f"{blob.size - at:,} bytes follow the last tensor, which the format forbids")


class _Header:
    """Reads `{"name": {"dtype": ..., "shape": ..., "data_offsets": ...}, ...}` one tensor at a time.

    A general JSON parser would build whatever a hostile header describes, twenty times its size. This one holds
    nothing but the tensors found so far, and sees a name that stands twice.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.at = 0

    def parse(self) -> tuple[dict[str, tuple[Format, tuple[int, ...], int, int]], dict[str, str]]:
        tensors: dict[str, tuple[Format, tuple[int, ...], int, int]] = {}
        metadata: dict[str, str] | None = None
        # The specification wants the brace first: this is how readers tell the format.
        if not self.text.startswith("{"):
            self.fail("the header does not begin with '{'")
        self.at = 1
        if not self.take("}"):
            while True:
                name = self.string()
                self.expect(":")
                if name == "__metadata__":
                    if metadata is not None:
                        self.fail("'__metadata__' stands twice")
                    metadata = self.strings()
                else:
                    if name in tensors:
                        self.fail(f"tensor {quoted(name)} stands twice")
                    tensors[name] = self.tensor(name)
                if self.take("}"):
                    break
                self.expect(",")
        if self.text[self.at :].strip(" \t\n\r"):
            self.fail("something follows the header's closing brace")
        return tensors, metadata or {}

    def tensor(self, name: str) -> tuple[Format, tuple[int, ...], int, int]:
        self.skip()
        end = self.text.find("}", self.at, self.at + _MAX_ENTRY)
        if end < 0:
            self.fail(f"the description of tensor {quoted(name)} does not end within {_MAX_ENTRY} characters")
        try:
            pairs = json.loads(self.text[self.at : end + 1], object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            self.fail(f"the description of tensor {quoted(name)} is not valid JSON ({error})")
        self.at = end + 1
        fields: dict[str, Any] = dict(pairs) if isinstance(pairs, list) and all(map(_is_pair, pairs)) else {}
        if len(pairs) != 3 or fields.keys() != {"dtype", "shape", "data_offsets"}:
            self.fail(f"tensor {quoted(name)} needs exactly one dtype, one shape and data_offsets")
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _FORMATS:
            self.fail(
                f"tensor {quoted(name)} has dtype {quoted(str(dtype))}, which is not one of {', '.join(_FORMATS)}"
            )
        if not _are_sizes(shape):
            self.fail(f"tensor {quoted(name)} has a shape that is not a list of sizes")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            self.fail(f"tensor {quoted(name)} has data_offsets that are not [begin, end]")
        return _FORMATS[dtype], tuple(shape), offsets[0], offsets[1]

    def strings(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self.expect("{")
        if self.take("}"):
            return found
        while True:
            key = self.string()
            self.expect(":")
            if key in found:
                self.fail(f"metadata {quoted(key)} stands twice")
            found[key] = self.string()
            if self.take("}"):
                return found
            self.expect(",")

    def string(self) -> str:
        self.expect('"')
        try:
            value, self.at = _JSON.raw_decode(self.text, self.at - 1)
            value.encode()  # half of a surrogate pair is no text
        except ValueError as error:
            self.fail(f"a name or text in the header is damaged ({error})")
        return str(value)

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def take(self, char: str) -> bool:
        self.skip()
        if not self.text.startswith(char, self.at):
            return False
        self.at += 1
        return True

    def expect(self, char: str) -> None:
        if not self.take(char):
            found = quoted(self.text[self.at : self.at + 1]) if self.at < len(self.text) else "its end"
            self.fail(f"byte {8 + self.at} of the header should be {char!r}, found {found}")

    def fail(self, problem: str) -> NoReturn:
        reject(self.file, f"bad safetensors header: {problem}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _are_sizes(value: Any) -> bool:
    # bool is an int to Python, and no size.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
