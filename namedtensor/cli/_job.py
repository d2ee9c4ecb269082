"""One `namedtensor run`: the model, its task, what the person gave, and where time went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
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

    def start(self) -> Session:
        """Compile and load, with progress on a terminal."""
        with self.timed("start"), zoo.located(self.model):
            return self.program.start(progress=True)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - began

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
