"""The pages of docs/ keep their word: every example runs, and says what it is said to say.

Blocks are marked by what follows the fence:

    ```python                      runs, in one namespace for the page; `# -> value` after an expression is checked
    ```python error                raises an error of the project, whose report is the ```text block that follows
    ```python title="model.py"     is that file, written before the page's examples run; it is not executed itself
    ```python torch                stands in tests/golden/make_dump.py, but for indentation
    ```sh                          commands of namedtensor, whose options exist
    ```sh run                      commands of namedtensor, run in order; `# exit 1` after one that is to fail
    ```starlark                    is for Bazel; tests/bazel holds its rules and attributes against those that there are
    ```text output                 stands in what the commands or prints before it wrote, but for fractions
"""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import namedtensor as nt
from namedtensor._errors import describe
from namedtensor.cli import main
from namedtensor.cli._app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
# It has a test of its own, which knows more of errors.
RUN = [page for page in PAGES if page.name != "errors.md"]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
ARROW = re.compile(r"#\s*->\s*(?P<value>.*\S)\s*\Z")


@dataclass
class Block:
    """One fenced block of a page."""

    info: str
    body: str
    line: int
    printed: str = field(default="")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m["info"].strip(), m["body"], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with what the pages say is there: a checkout's models, and the files of the porting example."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    for file in (ROOT / "tests" / "golden" / "porting").iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_examples_run(page: Path, place: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    found = blocks(page)
    for block in found:
        title = re.search(r'title="([^"]+)"', block.info)
        if title is not None:
            (place / title[1]).write_text(block.body, encoding="utf-8")
    before = ""
    for at, block in enumerate(found):
        following = found[at + 1] if at + 1 < len(found) else None
        if block.info == "python":
            before = run(page, block, namespace)
        elif block.info == "python error":
            assert following is not None
            assert following.info == "text", f"{page.name}:{block.line}: the report does not follow"
            with pytest.raises(nt.NamedTensorError) as error:
                run(page, block, namespace)
            assert unplaced(str(error.value)) == unplaced(following.body)
        elif block.info == "sh run":
            before = run_commands(page, block)
        elif block.info == "text output":
            assert unnumbered(block.body) in unnumbered(before), f"{page.name}:{block.line}: it printed\n{before}"


def run(page: Path, block: Block, namespace: dict[str, Any]) -> str:
    """Execute a block statement by statement, checking what stands behind its arrows; returns what it printed."""
    # With the page's own line numbers, so that errors and tracebacks point into the page.
    source = "\n" * (block.line - 1) + block.body
    linecache.cache[str(page)] = (len(source), None, source.splitlines(keepends=True), str(page))
    lines = source.splitlines()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for statement in ast.parse(source, str(page)).body:
            assert statement.end_lineno is not None
            arrow = ARROW.search(lines[statement.end_lineno - 1])
            if isinstance(statement, ast.Expr) and arrow is not None:
                value = eval(compile(ast.Expression(statement.value), str(page), "eval", dont_inherit=True), namespace)
                check(value, arrow["value"], f"{page.name}:{statement.end_lineno}")
            else:
                assert arrow is None, f"{page.name}:{statement.end_lineno}: an arrow stands behind an expression"
                exec(compile(ast.Module([statement], []), str(page), "exec", dont_inherit=True), namespace)
    return printed.getvalue()


def check(value: Any, wanted: str, where: str) -> None:
    if isinstance(value, nt.Tensor):
        if re.match(r"\((\w+=\d.*)?\) ", wanted):
            # In any order: that is what the page is about.
            assert sorted(re.split(r"[(), ]+", describe(value))) == sorted(re.split(r"[(), ]+", wanted)), where
            return
        value = value.numpy(" ".join(value.axes)).tolist()
    if isinstance(value, str):
        assert value == wanted, where
        return
    with contextlib.suppress(ValueError, SyntaxError):
        literal = ast.literal_eval(wanted)
        if np.asarray(literal).dtype.kind in "ifb" and not isinstance(literal, (bool, tuple)):
            np.testing.assert_allclose(value, literal, rtol=1e-2, atol=1e-3, err_msg=where)
            return
    assert str(value) == wanted, where


def unplaced(report: str) -> str:
    """A report without the file and line in it, which are the page's own."""
    return "\n".join(re.sub(r"(\bat +)\S+:\d+:", r"\1FILE:", line).rstrip() for line in report.strip().splitlines())


def unnumbered(text: str) -> str:
    """A text without the digits of its fractions, which differ between machines in the last place, and its columns."""
    lines = (re.sub(r"\d+\.\d+(e[-+]\d+)?|\d+e[-+]\d+", "#", line) for line in text.strip().splitlines())
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in lines)


def run_commands(page: Path, block: Block) -> str:
    printed = ""
    for line in commands(block):
        wanted = re.search(r"# exit (\d+)$", line)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(shlex.split(line, comments=True)[1:])
        assert code == (int(wanted[1]) if wanted else 0), f"{page.name}:{block.line}: {line}\n{err.getvalue()}"
        printed += out.getvalue() + err.getvalue()
    return printed


def commands(block: Block) -> list[str]:
    joined = block.body.replace("\\\n", " ")
    return [
        line.removeprefix(".venv/bin/")
        for line in joined.splitlines()
        if re.match(r"(\.venv/bin/)?namedtensor\b", line)
    ]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for block in blocks(page):
        if not block.info.startswith("sh"):
            continue
        for line in commands(block):
            words = shlex.split(line, comments=True)[1:]
            context = click.Context(app, info_name="namedtensor")
            name = next((word for word in words if not word.startswith("-")), None)
            if name is None:
                assert set(words) <= {"--help", "-h", "--debug"}, f"{page.name}: {line}"
                continue
            command = app.get_command(context, name)
            assert command is not None, f"{page.name}: there is no command {name}"
            words = words[words.index(name) + 1 :]
            while isinstance(command, click.Group):
                inner = command.get_command(context, words[0]) if words else None
                assert inner is not None, f"{page.name}: there is no such command: {line}"
                name, command, words = words[0], inner, words[1:]
            try:
                command.make_parser(click.Context(command, info_name=name)).parse_args(words)
            except click.ClickException as error:
                pytest.fail(f"{page.name}: {line}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_shown_of_pytorch_is_what_made_the_reference(page: Path) -> None:
    script = unindented((ROOT / "tests" / "golden" / "make_dump.py").read_text(encoding="utf-8"))
    for block in blocks(page):
        if block.info == "python torch":
            assert unindented(block.body) in script, f"{page.name}:{block.line}"


def unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    if page.name == "errors.md":
        return
    known = {
        "python",
        "python error",
        "python torch",
        "sh",
        "sh run",
        "text",
        "text output",
        "toml",
        "json",
        "mlir",
        "starlark",
    }
    assert {block.info for block in blocks(page) if "title=" not in block.info} <= known


def test_there_are_the_pages_that_the_readme_names() -> None:
    assert {"getting-started", "named-axes", "first-model", "porting", "cli", "checkpoints"} <= {p.stem for p in PAGES}
