"""Any number of examples through an entry point that was compiled for a few batch sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namedtensor.lowering import Session


def batches(session: Session, entry: str, like: str, count: int, axis: str = "b") -> Iterator[tuple[int, int, int]]:
    """(first, last + 1, compiled size) of one call after another, together `count` examples.

    `like` is an input of the entry point that has the batch `axis`. A compiled size may exceed the examples that are
    left; the caller fills it up.
    """
    compiled = session.program.entries[entry]
    sizes = compiled.buckets.get(axis) or (compiled.inputs[like].size(axis),)
    start = 0
    while start < count:
        taken = min(count - start, max(sizes))
        yield start, start + taken, min(size for size in sizes if size >= taken)
        start += taken
