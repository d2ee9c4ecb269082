"""The command, called as `main` in this process, and a model file as a user would write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from namedtensor.cli import main

MODEL = """\
import namedtensor as nt

WEIGHTS = "weights.safetensors"


class Layer(nt.Module):
    w: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return x.dot(self.w, "d").rename("e -> d")


class Stack(nt.Module):
    layers: list[Layer]

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def forward(model: Stack, x: nt.Tensor) -> dict[str, nt.Tensor]:
    return {"y": model(x)}


def step(model: Stack, state: dict[str, nt.Tensor], x: nt.Tensor) -> dict[str, nt.Tensor]:
    return {"total": state["total"] + model(x)}


def program(ckpt, *, layers: int = 2, dtype: str | None = None, two_entries: bool = False):
    stack = Stack([Layer(ckpt.weight(f"layers.{i}.w", "d e", dtype=dtype)) for i in range(layers)])
    x = nt.spec("b d", dtype or "float32", b=2, d=4)
    entries = {"forward": nt.entry(forward, x=x, buckets={"b": (2, 8)} if two_entries else None)}
    if two_entries:
        entries["step"] = nt.entry(step, state={"total": x}, x=x, donate="state")
    return nt.Program(stack, entries, name="stack")
"""


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


type Cli = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, so that they neither find nor leave anything in the user's."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAMEDTENSOR_CACHE", str(directory))
        yield directory


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("run", "digits", file)`: call the command line in this process."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file with three layers' weights beside it: the identity times 1, 2 and 3."""
    save_file(
        {f"layers.{i}.w": np.eye(4, dtype=np.float32) * (i + 1) for i in range(3)}, tmp_path / "weights.safetensors"
    )
    path = tmp_path / "stack.py"
    path.write_text(MODEL)
    return path
