"""Mistakes and what they answer: read from misuses.toml, run as the model file that they would stand in.

A misuse has a title, sometimes a remark, its inputs (axes with sizes, then a type where it is not float32), the code of
`model.py`, and the report that it must give. Those with `page = true` are shown in docs/errors.md.
"""

import contextlib
import linecache
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import namedtensor as nt

TABLE = Path(__file__).with_name("misuses.toml")
MODEL = "model.py"


@dataclass(frozen=True)
class Misuse:
    title: str
    code: str
    kind: str
    report: str
    inputs: dict[str, str] = field(default_factory=dict)
    remark: str = ""
    page: bool = False

    def tensors(self) -> dict[str, nt.Tensor]:
        return {name: _tensor(axes) for name, axes in self.inputs.items()}

    def run(self, tensors: dict[str, nt.Tensor]) -> None:
        """Run the code with the inputs under their names, in a file called model.py that exists only in memory."""
        with _file(self.code):
            exec(compile(self.code, MODEL, "exec"), {"nt": nt, "__name__": "model", **tensors})

    def __str__(self) -> str:
        return self.title.replace(" ", "-")


def read() -> list[Misuse]:
    """Every misuse of the table, in its order."""
    return [Misuse(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["misuse"]]


def _tensor(axes: str) -> nt.Tensor:
    """`b=2 s=4 int32` as a tensor of zeros."""
    words = axes.split()
    sizes = {name: int(size) for name, _, size in (word.partition("=") for word in words if "=" in word)}
    dtype = next((word for word in words if "=" not in word), "float32")
    return nt.zeros(" ".join(sizes), dtype, **sizes)


@contextlib.contextmanager
def _file(code: str) -> Iterator[None]:
    linecache.cache[MODEL] = (len(code), None, code.splitlines(keepends=True), MODEL)
    try:
        yield
    finally:
        linecache.cache.pop(MODEL, None)
