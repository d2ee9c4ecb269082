"""Archives of programs that continue prompts at work: the same ids and text as of `namedtensor run`."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from namedtensor import zoo
from namedtensor.cli import main
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from namedtensor.lowering import Program, Session
from tests.export.running import confined, refused, run, run_alone
from tests.export.unpack import unpack

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")

GOLDEN = Path(__file__).parents[1] / "golden" / "llama"
QUESTION = "What is the capital of France?"
# The context is larger than the largest bucket.
OPTIONS = {"dtype": "float32", "context": 112}
LONG = [(7 * i) % 415 + 5 for i in range(100)]


@pytest.fixture(scope="module")
def program() -> Program:
    return zoo.find("llama").program(GOLDEN / "chat", OPTIONS)


@pytest.fixture(scope="module")
def session(program: Program) -> Session:
    return program.start(only=["decode", "sample"])


@pytest.fixture(scope="module")
def llama(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of a small Llama with a tokenizer and a chat template."""
    packed = tmp_path_factory.mktemp("archive") / "llama.tar.zst"
    archive.build(program, packed, ["cpu:x86-64-v2"])
    return unpack(packed, tmp_path_factory.mktemp("root"))


def document(program: Path, *arguments: object) -> dict[str, Any]:
    found = run(program, *arguments, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    printed: dict[str, Any] = json.loads(found.stdout)
    return printed


SAMPLED = ("--temperature", 1.3, "--top-k", 60, "--top-p", 0.95, "--min-p", 0.01, "--repetition-penalty", 1.2)
GREEDY = ("--temperature", 0)
IDS = ("--prompt-ids", ",".join(map(str, LONG)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prompt", "the", *GREEDY, "--repetition-penalty", 1.3),
        ("--prompt", "The river is wide, über Köln. 日本語 🙂", *GREEDY),
        ("--prompt", "The river", "--seed", 1),
        ("--prompt", "The river", *SAMPLED, "--seed", 2**32 - 1, "--max-tokens", 50),
        ("--prompt", "The river", *SAMPLED, "--seed", 7, "--stop", "e", "--stop", "\N{REPLACEMENT CHARACTER}"),
        ("--prompt", QUESTION, "--chat", *GREEDY),
        ("--prompt", QUESTION, "--chat", *GREEDY, "--stop", "magh"),
        ("--prompt", " Say it. ", "--system", " You answer in one short sentence.\n", "--max-tokens", 3),
        (*IDS, *GREEDY),
        (*IDS, *GREEDY, "--max-tokens", 1),
        ("--prompt-ids", "5 17 3", *SAMPLED, "--seed", 3, "--max-tokens", 40),
    ],
    ids=lambda arguments: " ".join(map(str, arguments))[:40],
)
def test_answers_are_those_of_namedtensor_run(
    llama: Path, program: Program, session: Session, arguments: tuple[Any, ...]
) -> None:
    given = iter(arguments)
    call: dict[str, Any] = {"max_tokens": 256, "stop": []}
    for option in given:
        name = option.removeprefix("--").replace("-", "_")
        if name == "chat":
            call["messages"] = [{"role": "user", "content": call.pop("prompt")}]
        elif name == "system":
            user = {"role": "user", "content": call.pop("prompt")}
            call["messages"] = [{"role": "system", "content": next(given)}, user]
        elif name == "prompt_ids":
            call[name] = [int(id) for id in next(given).replace(",", " ").split()]
        elif name == "stop":
            call[name].append(next(given))
        else:
            call[name] = next(given)
    wanted = program.task.run(session, **call).to_json()
    found = document(llama, *arguments)
    for key in ("ids", "text", "finish_reason", "prompt_ids", "prompt_tokens", "answer_tokens", "seed", "sampling"):
        assert found[key] == wanted[key], key


def test_a_long_answer_and_every_reason_to_end_are_among_them(llama: Path) -> None:
    ended = {
        "eos": ("--prompt", QUESTION, "--chat", *GREEDY),
        "stop": ("--prompt", QUESTION, "--chat", *GREEDY, "--stop", "magh"),
        "length": (*IDS, *GREEDY, "--max-tokens", 1),
        "context": ("--prompt", "the", *GREEDY, "--repetition-penalty", 1.3),
    }
    found = {reason: document(llama, *arguments) for reason, arguments in ended.items()}
    assert {reason: answer["finish_reason"] for reason, answer in found.items()} == {reason: reason for reason in ended}
    assert found["context"]["answer_tokens"] > 100


def test_the_document_is_that_of_namedtensor_run(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [part for name, value in OPTIONS.items() for part in ("--set", f"{name}={value}")]
    asked = ["--prompt", QUESTION, "--chat", "--temperature", "0"]
    capsys.readouterr()
    assert main(["run", "llama", "--weights", str(GOLDEN / "chat"), *options, *asked, "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    found = document(llama, *asked)
    times = {"first_token_seconds", "seconds", "tokens_per_second", "timing"}
    assert found.keys() == wanted.keys()
    assert {key: found[key] for key in found.keys() - times} == {key: wanted[key] for key in wanted.keys() - times}
    assert found["timing"].keys() == wanted["timing"].keys()
    assert all(found[time] > 0 for time in times - {"timing"})
    assert run(llama, *asked).stdout == wanted["text"] + "\n"


@pytest.mark.skipif(not confined(), reason="bubblewrap is not here, or may not make namespaces")
def test_it_runs_where_there_is_nothing_but_the_archive(llama: Path, tmp_path: Path) -> None:
    found = run_alone(llama, tmp_path, "--chat", "--prompt", QUESTION, "--temperature", 0)
    answer = json.loads((GOLDEN / "chat" / "reference.json").read_text())["answer"]
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == answer["text"] + "\n"


def test_the_prompts_logits_are_those_of_namedtensor_run(
    llama: Path, program: Program, session: Session, tmp_path: Path
) -> None:
    file = tmp_path / "logits.npy"
    wanted = program.task.score(session, LONG)
    found = document(llama, *IDS, "--logits", file, "--max-tokens", 2)
    assert found["logits"] == {"file": str(file), "shape": [100, 420], "dtype": "float32"}
    # Two layers in float32: the last bits differ where sums are taken in another order.
    np.testing.assert_allclose(np.load(file), wanted, rtol=1e-5, atol=1e-5)
    alone = run(llama, *IDS, "--logits", file, "--max-tokens", 0)
    assert alone.stdout == f"wrote {file}: 100 × 420 float32\n"
    assert document(llama, *IDS, "--logits", file, "--max-tokens", 0)["prompt_ids"] == LONG


def test_the_prompt_comes_from_stdin(llama: Path) -> None:
    text = "Zwölf Boxkämpfer\njagen"
    arguments = ("--max-tokens", 2, *GREEDY, "--json")
    wanted = json.loads(run(llama, "--prompt", text, *arguments).stdout)["prompt_ids"]
    piped = run(llama, "--prompt", "-", *arguments, stdin=text.replace("\n", "\r\n"))
    assert json.loads(piped.stdout)["prompt_ids"] == wanted
    assert "stdin is not valid UTF-8" in refused(llama, "--prompt", "-", stdin=b"a\xff", code=3)


def test_text_comes_in_pieces_that_end_between_characters(llama: Path) -> None:
    command = [str(llama / "llama"), "--prompt", "The river", "--temperature", "2", "--seed", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as running:
        assert running.stdout is not None
        pieces = list(iter(lambda: os.read(running.stdout.fileno(), 1 << 16), b""))  # type: ignore[union-attr]
    assert running.returncode == 0
    assert len(pieces) > 1
    assert "".join(piece.decode() for piece in pieces) == run(llama, *command[1:]).stdout


def test_on_a_terminal_control_characters_are_shown_and_numbers_stand_below(llama: Path) -> None:
    ours, theirs = pty.openpty()
    command = [str(llama / "llama"), "--chat", "--prompt", QUESTION, "--temperature", "0"]
    subprocess.run(command, stdout=theirs, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = b""
    while (piece := _read(ours)) != b"":
        shown += piece
    os.close(ours)
    text, _, numbers = shown.decode().replace("\r\n", "\n").partition("\n")
    assert "lt\\x0cim" in text
    assert "\\x19" in text
    assert "45 + 52 tokens, the first after " in numbers
    assert "ended by eos" in numbers


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # so does Linux report that nobody writes to it any more
        return b""


def test_only_what_is_needed_is_read(llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(llama, tmp_path / "llama"))
    executables = copy / "targets" / "cpu-x86-64-v2"
    for unused in ("prefill.s64", "score"):
        (executables / f"{unused}.ntx").unlink()
    arguments = ("--prompt-ids", "5,17,3", *GREEDY, "--max-tokens", 4)
    assert run(copy, *arguments).stdout == run(llama, *arguments).stdout
    (executables / "decode.ntx").unlink()
    assert run(copy, *arguments[:-1], 1).returncode == 0
    assert "decode.ntx" in refused(copy, *arguments, code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "llama continues a prompt: give --prompt TEXT or --prompt-ids 5,17,3"),
        (["hello"], 2, 'llama takes its prompt as an option: --prompt "hello"'),
        (["--prompt", "a", "--prompt-ids", "1"], 2, "give --prompt or --prompt-ids, not both"),
        (["--prompt-ids", "1", "--chat"], 2, "--chat and --system go with --prompt"),
        (["--prompt-ids", "1,x"], 2, "--prompt-ids 1,x: write whole numbers with commas between them"),
        (["--prompt-ids", "5,999"], 3, "token 1 of the prompt is 999; ids go from 0 to 419"),
        (["--prompt-ids", "-1"], 3, "token 0 of the prompt is -1; ids go from 0 to 419"),
        (["--prompt-ids", ""], 3, "the prompt is empty"),
        (["--prompt-ids", " ".join(["5"] * 112)], 3, "the prompt has 112 tokens, and the context of 112"),
        (["--prompt", b"\xff"], 3, "--prompt: the text is not valid UTF-8"),
        (["--prompt-ids", "1", "--temperature", "-1"], 2, "--temperature must be a number from 0, not -1.0"),
        (["--prompt-ids", "1", "--top-p", "2"], 2, "--top-p must be a number from 0 to 1, not 2.0"),
        (["--prompt-ids", "1", "--repetition-penalty", "0"], 2, "--repetition-penalty must be a number above 0"),
        (["--prompt-ids", "1", "--min-p", "nan"], 2, "--min-p must be a number from 0 to 1"),
        (["--prompt-ids", "1", "--top-k", "-1"], 2, "--top-k"),
        (["--prompt-ids", "1", "--seed", "-1"], 2, "--seed"),
        (["--prompt-ids", "1", "--max-tokens", "many"], 2, "--max-tokens"),
        (["--prompt-ids", "1", "--max-tokens", "0"], 2, "--max-tokens 0 leaves nothing to do without --logits"),
        (["--prompt-ids", "1", "--logits", "nowhere/l.npy"], 2, "there is no directory nowhere"),
        (["--prompt-ids", "1", "--stop", ""], 3, "stop strings must be strings of at least one character"),
    ],
    ids=str,
)
def test_what_is_wrong_stands_in_one_line(llama: Path, arguments: list[Any], code: int, message: str) -> None:
    found = subprocess.run([llama / "llama", *arguments], capture_output=True, check=False, env={}, timeout=60)
    error = found.stderr.decode()
    assert (found.returncode, found.stdout) == (code, b""), error
    assert message in error
    assert error.count("\n") == 1


def changed(llama: Path, copy: Path, **task: Any) -> Path:
    """The archive with another declaration of its task."""
    shutil.copytree(llama, copy)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["task"] |= task
    (copy / "bundle.json").write_text(json.dumps(manifest))
    return copy


def test_a_program_without_tokenizer_takes_and_prints_ids(llama: Path, tmp_path: Path) -> None:
    plain = changed(llama, tmp_path / "llama", tokenizer=None, template=None)
    ids = document(llama, *IDS, *GREEDY)["ids"]
    assert run(plain, *IDS, *GREEDY).stdout == ",".join(map(str, ids)) + "\n"
    assert document(plain, *IDS, *GREEDY)["text"] is None
    message = "the checkpoint has no tokenizer.json, so the prompt must be ids"
    assert message in refused(plain, "--prompt", "a", code=3)
    assert "stop strings need a tokenizer" in refused(plain, *IDS, "--stop", "a", code=3)


@pytest.mark.parametrize(
    ("task", "code", "message"),
    [
        ({"context": 0}, 1, "the task"),
        ({"context": 1 << 40}, 1, "the task"),
        ({"vocab": 1 << 40}, 1, "the task"),
        ({"vocab": 400}, 3, "ids go from 0 to 399"),
        ({"vocab": 500}, 1, "the task: sample: input seen is bool[1, 500], not bool[1, 420]"),
        ({"eos": [420]}, 1, "answers end at 420"),
        ({"eos": "no"}, 1, "the task"),
        ({"sampling": {"temperature": 1}}, 1, "the task"),
        ({"tokenizer": "assets/other.json"}, 1, "is not among its files"),
        ({"tokenizer": "programs/decode.mlirbc"}, 1, "not a tokenizer"),
        ({"surprise": 1}, 1, "surprise"),
        ({"template": None}, 3, "the checkpoint has no chat template"),
        ({"template": {"source": "{{ raise_exception('no') }}", "tokens": {}}}, 3, "refuses the messages: no"),
        ({"template": {"source": "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "tokens": {}}}, 3, "time"),
        ({"template": {"source": "{{ 'x' * 10 ** 10 }}", "tokens": {}}}, 3, "the chat template"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_a_declaration_that_says_something_else_is_refused(
    llama: Path, tmp_path: Path, task: dict[str, Any], code: int, message: str
) -> None:
    other = changed(llama, tmp_path / "llama", **task)
    assert message in refused(other, "--prompt", "hello", "--chat", *GREEDY, code=code)


def test_sampled_text_in_bfloat16_is_that_of_namedtensor_run(tmp_path: Path) -> None:
    # Where a last bit differs in a sum, a rounding flips sooner or later, and with it a token.
    if not {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("namedtensor run compiles for other instructions than x86-64-v3 here")
    program = zoo.find("shakespeare").program(None, {})
    packed = tmp_path / "shakespeare.tar.zst"
    archive.build(program, packed, ["cpu:x86-64-v3"])
    found = unpack(packed, tmp_path / "root")
    session = program.start(only=["decode", "sample"])
    # One that decoding's kernels take, one that prefill's for many rows do.
    prompts = "ROMEO:\n", "KING HENRY: What news, my lord, from France and from the noble duke? Speak quickly.\nLORD:\n"
    for seed, prompt in enumerate(prompts * 3):
        wanted = program.task.run(session, prompt=prompt, seed=seed, max_tokens=200).to_json()
        assert document(found, "--prompt", prompt, "--seed", seed, "--max-tokens", 200)["ids"] == wanted["ids"], seed
