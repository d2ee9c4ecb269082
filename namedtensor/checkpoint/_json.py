"""JSON from files that nobody vouches for: bounded in size, depth and memory, and without duplicate keys."""

import json
from typing import Any

from namedtensor.checkpoint._blob import Blob
from namedtensor.checkpoint._reject import quoted, reject

MAX_BYTES = 32 << 20
# An empty `{}` takes three bytes with its comma and becomes an object of 64. JSON that is meant to be read has an
# object or list for every ten bytes at most; a file with more than one in six is meant to fill memory.
_SPARE_CONTAINERS = 1000
_BYTES_PER_CONTAINER = 6


def parse(data: bytes, file: str) -> Any:
    """The value in `data`. Raises `CheckpointError` of one line that names `file`."""
    if len(data) > MAX_BYTES:
        reject(file, f"{len(data):,} bytes of JSON, more than {MAX_BYTES:,}")
    containers = data.count(b"{") + data.count(b"[")
    if containers > _SPARE_CONTAINERS + len(data) // _BYTES_PER_CONTAINER:
        reject(file, f"{containers:,} objects and lists in {len(data):,} bytes of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            reject(file, f"the key {quoted(twice)} stands twice in one JSON object")
        return found

    try:
        return json.loads(data, object_pairs_hook=unique)
    except RecursionError:
        reject(file, "JSON nested too deeply")
    except (ValueError, UnicodeError) as error:
        if type(error).__module__.startswith("namedtensor"):
            raise
        reject(file, f"not valid JSON ({error})")


def read(blob: Blob) -> Any:
    """The value in a whole file. Raises `CheckpointError` where it is too large or damaged."""
    if blob.size > MAX_BYTES:
        reject(blob.name, f"{blob.size:,} bytes of JSON, more than {MAX_BYTES:,}")
    return parse(blob.read(0, blob.size), blob.name)
