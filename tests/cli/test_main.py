"""The command as the shell sees it: exit codes, streams, errors without tracebacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from namedtensor.cli import _version
from tests.cli.conftest import Cli

COMMAND = [sys.executable, "-c", "import sys; from namedtensor.cli import main; sys.exit(main())"]


def test_help_names_the_commands_and_the_exit_codes(cli: Cli) -> None:
    result = cli("--help")
    assert result.code == 0
    for name in ("run", "inspect", "lower", "compare", "version"):
        assert f"\n  {name} " in result.out
    assert "Exit codes: 0 done; 1 the model or the machine failed; 2 wrong usage" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vers"], "there is no command 'vers': did you mean 'version'?"),
        (["zzz"], "there is no command 'zzz': there are run, inspect, lower"),
        (["version", "--nope"], "No such option"),
        (["version", "more"], "unexpected extra argument"),
        (["run"], "Missing argument 'MODEL'"),
        (["run", "digts"], "there is no model 'digts' in the zoo: did you mean 'digits'?"),
        (["run", "no/such.py"], "there is no model file no/such.py"),
        (["lower", "digits"], "Missing option '-o'"),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("namedtensor: error: ")
    assert message in result.err


def test_an_error_in_the_models_file_names_its_line(cli: Cli, model: Path) -> None:
    model.write_text(model.read_text().replace('return {"y": model(x)}', 'return {"y": model(x, 1)}'))
    result = cli("run", model, "--input", "x=[[1,2,3,4],[1,2,3,4]]")
    assert result.code == 1
    assert result.err.startswith(f"namedtensor: error: {model}:23: TypeError: ")
    assert len(result.err.splitlines()) == 1


def test_an_error_of_axes_shows_both_sides_and_the_models_line(cli: Cli, model: Path) -> None:
    model.write_text(model.read_text().replace('x.dot(self.w, "d")', 'x.dot(self.w, "k")'))
    result = cli("run", model, "--input", "x=[[1,2,3,4],[1,2,3,4]]")
    assert result.code == 1
    assert "'k' is not an axis of the left side (b, d)" in result.err.splitlines()[0]
    assert f'{model}:10: x.dot(self.w, "k")' in result.err


def test_debug_lets_the_traceback_through(cli: Cli, model: Path) -> None:
    model.write_text("1 / 0")
    assert cli("run", model).err == f"namedtensor: error: {model}:1: ZeroDivisionError: division by zero\n"
    with pytest.raises(Exception, match="division by zero"):
        cli("run", model, "--debug")


def test_what_a_hostile_name_holds_does_not_reach_the_terminal(cli: Cli) -> None:
    result = cli("run", "\x1b[31m.py")
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\\x1b[31m.py" in result.err


def test_an_interrupt_exits_with_130(cli: Cli, model: Path) -> None:
    model.write_text("raise KeyboardInterrupt")
    result = cli("run", model)
    assert (result.code, result.err) == (130, "namedtensor: error: interrupted\n")


def test_ctrl_c_ends_the_real_command(model: Path) -> None:
    model.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        # Tests that run in the background of a script inherit from it that Ctrl-C is ignored.
        [
            COMMAND[0],
            "-c",
            f"import signal; signal.signal(2, signal.default_int_handler); {COMMAND[2]}",
            "run",
            str(model),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "namedtensor: error: interrupted\n")


def test_a_closed_pipe_is_no_error(model: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        process = subprocess.run(
            [*COMMAND, "version"], stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (process.returncode, process.stderr) == (141, "")


def test_a_terminal_that_lacks_a_character_shows_another(model: Path) -> None:
    model.write_text("print('\\u2588')\nraise KeyboardInterrupt")
    process = subprocess.run(
        [*COMMAND, "run", str(model)],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert (process.returncode, process.stdout) == (130, b"?\n")


def test_what_jax_warns_of_is_no_news_to_a_user(cli: Cli, model: Path) -> None:
    text = model.read_text().replace('{"total": state["total"] + model(x)}', '{"total": model(x).sum("b d")}')
    model.write_text(text)
    x = "[[1,2,3,4],[1,2,3,4]]"
    run = ("run", model, "--set", "two_entries=yes", "--entry", "step", "--input", f"x={x}")
    result = cli(*run, "--input", f"state.total={x}")
    assert (result.code, result.err) == (0, "")


def test_version_lists_what_is_installed(cli: Cli) -> None:
    document = cli("version", "--json").json
    assert document["namedtensor"] == "0.1.0"
    assert document["python"] == sys.version.split()[0]
    assert document["platforms"]["cpu"] is None
    assert document["jax"] == document["jaxlib"]
    assert document["kernels"] in ("installed", None)
    text = cli("version").out.splitlines()
    assert text[0].split() == ["namedtensor", "0.1.0"]
    assert text[-1].startswith("platforms")


def test_version_names_the_plugin_of_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_version, "_installed", lambda name: {"jax-cuda13-pjrt": "0.11.2", "jax": "0.11.2"}.get(name))
    assert _version.versions()["platforms"] == {"cpu": None, "cuda": "jax-cuda13-pjrt 0.11.2"}
