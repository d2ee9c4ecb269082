"""One `namedtensor run`: the model, its task, what the person gave, and where time went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from namedtensor import zoo

if TYPE_CHECKING:
    from namedtensor.lowering import Program, Session


@dataclass
class Job:
    """What a task's command works on."""

    model: zoo.ModelFile
    program: Program
    task: Any
    kind: str
    arguments: tuple[str, ...]
    values: dict[str, Any]
    as_json: bool
    seconds: dict[str, float] = field(default_factory=dict)
    document: dict[str, Any] | None = None

    def start(self, *needed: str) -> Session:
        """Load, and compile the variants that this run needs, with progress on a terminal."""
        with self.working("start"):
            return self.program.start(only=needed, progress=True)

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Time a part of the run; what the model's own code raises in it names the line."""
        began = time.perf_counter()
        with zoo.located(self.model):
            yield
        self.seconds[what] = time.perf_counter() - began

    def variants(self, entry: str, **sizes: Collection[int]) -> list[str]:
        """Names of an entry point's variants, of the bucketed axes named here only those of these sizes."""
        return [
            variant.name
            for variant in self.program.variants(entry)
            if all(size in sizes.get(axis, (size,)) for axis, size in variant.sizes)
        ]

    def pieces(self, entry: str, axis: str, count: int) -> set[int]:
        """Sizes of a bucketed axis that `count` takes: the largest as often as it goes, and what holds the rest."""
        sizes = self.program.entries[entry].buckets.get(axis, ())
        if not sizes:
            return set()
        rest = count % max(sizes)
        found = {max(sizes)} if count >= max(sizes) else set()
        return found | {min(size for size in sizes if size >= rest)} if rest else found

    def report(self, result: dict[str, Any]) -> None:
        """Keep the result for the one JSON document, which is printed when all is done."""
        self.document = {"model": self.model.name, "task": self.kind, **result, "timing": self.seconds}


@dataclass(frozen=True)
class Kind:
    """A kind of task as the command line knows it.

    `arguments` and `summary` describe it in help; `options` are those that only this kind takes; `run` does it, and
    prints or, for `Job.as_json`, reports. It checks what was given before it calls `Job.start`.
    """

    name: str
    arguments: str
    summary: str
    options: Sequence[click.Option]
    run: Callable[[Job], None]

    def takes(self) -> str:
        """Its arguments and options, in one line."""
        return ", ".join([*[self.arguments] * bool(self.arguments), *(max(o.opts, key=len) for o in self.options)])
