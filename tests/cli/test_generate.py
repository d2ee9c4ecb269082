"""`run` on programs that continue prompts, with small Llamas whose answers are known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli

GOLDEN = Path(__file__).parents[1] / "golden" / "llama"
# Greedy, and no larger than the tests need.
CHAT = (
    "run",
    "llama",
    "--weights",
    GOLDEN / "chat",
    "--set",
    "dtype=float32",
    "--set",
    "context=112",
    "--temperature",
    0,
)
SMALL = ("--set", "context=48")


@pytest.fixture(scope="module")
def reference() -> dict[str, list[int]]:
    with np.load(GOLDEN / "llama2-mha" / "reference.npz") as file:
        return {name: file[name].tolist() for name in ("prompt", "tokens", "prefill")}


@pytest.fixture(scope="module")
def answer() -> dict[str, str]:
    found: dict[str, str] = json.loads((GOLDEN / "chat" / "reference.json").read_text())["answer"]
    return found


def test_ids_are_enough_and_the_prompts_logits_are_written(
    cli: Cli, reference: dict[str, list[int]], tmp_path: Path
) -> None:
    file = tmp_path / "logits.npy"
    ids = ",".join(map(str, reference["prompt"]))
    run = ("run", "llama", "--weights", GOLDEN / "llama2-mha", *SMALL, "--prompt-ids", ids, "--max-tokens", 12)
    result = cli(*run)
    assert (result.code, result.err) == (0, "")
    assert result.out == ",".join(map(str, reference["tokens"][:12])) + "\n"
    document = cli(*run, "--logits", file, "--json").json
    assert document["ids"] == reference["tokens"][:12]
    assert document["text"] is None
    assert document["finish_reason"] == "length"
    assert document["logits"] == {"file": str(file), "shape": [24, 192], "dtype": "float32"}
    np.testing.assert_allclose(np.load(file), reference["prefill"], rtol=1e-4, atol=1e-4)


def test_logits_alone(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"
    run = ("run", "llama", "--weights", GOLDEN / "llama2-mha", *SMALL, "--prompt-ids", "5 17 3", "--max-tokens", 0)
    assert cli(*run, "--logits", file).out == f"wrote {file}: 3 × 192 float32\n"
    assert np.load(file).shape == (3, 192)
    assert cli(*run, "--logits", file, "--json").json["prompt_ids"] == [5, 17, 3]
    assert cli(*run).code == 2


def test_a_chat_streams_the_known_answer(cli: Cli, answer: dict[str, str]) -> None:
    result = cli(*CHAT, "--chat", "--prompt", "What is the capital of France?")
    assert (result.code, result.err) == (0, "")
    assert result.out == answer["text"] + "\n"
    document = cli(*CHAT, "--chat", "--prompt", "What is the capital of France?", "--json").json
    assert document["text"] == answer["text"]
    assert document["finish_reason"] == "eos"
    assert document["sampling"]["top_p"] == 0.9  # from generation_config.json


def test_a_stop_string_ends_the_answer(cli: Cli, answer: dict[str, str]) -> None:
    result = cli(*CHAT, "--chat", "--prompt", "What is the capital of France?", "--stop", "magh")
    assert result.out == answer["text"].partition("magh")[0] + "\n"


def test_the_prompt_comes_from_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    first = cli(*CHAT, "--prompt", "-", "--max-tokens", 2, "--json").json
    assert first["prompt_ids"] == cli(*CHAT, "--prompt", "hello", "--max-tokens", 2, "--json").json["prompt_ids"]


def test_one_seed_gives_one_answer(cli: Cli) -> None:
    run = (*CHAT[:-1], 1.0, "--top-k", 50, "--prompt", "hello", "--max-tokens", 8, "--json")
    same = [cli(*run, "--seed", seed).json["ids"] for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "llama continues a prompt: give --prompt TEXT or --prompt-ids 5,17,3"),
        (["hello"], 2, 'llama takes its prompt as an option: --prompt "hello"'),
        (["--prompt", "a", "--prompt-ids", "1"], 2, "give --prompt or --prompt-ids, not both"),
        (["--prompt-ids", "1", "--chat"], 2, "--chat and --system go with --prompt"),
        (["--prompt-ids", "1,x"], 2, "--prompt-ids 1,x: write whole numbers with commas between them"),
        (["--prompt-ids", "5,999"], 3, "token 1 of the prompt is 999; ids go from 0 to 419"),
        (["--prompt-ids", ""], 3, "the prompt is empty"),
        (["--prompt", "\udcff"], 3, "--prompt: the text is not valid UTF-8"),
        (["--prompt-ids", "1", "--temperature", "-1"], 2, "--temperature must be a number from 0, not -1.0"),
        (["--prompt-ids", "1", "--top-p", "2"], 2, "--top-p must be a number from 0 to 1, not 2.0"),
        (["--prompt-ids", "1", "--seed", "-1"], 2, "'--seed'"),
        (["--prompt-ids", "1", "--max-tokens", "many"], 2, "'--max-tokens'"),
        (["--prompt-ids", "1", "--logits", "nowhere/l.npy"], 2, "there is no directory nowhere"),
        (["--prompt-ids", "1", "--set", "context=100000"], 1, "context must be from 1 to 256"),
        (["--prompt-ids", "1", "--weights", str(GOLDEN.parent / "bert" / "gelu")], 1, "bert"),
    ],
)
def test_what_is_wrong_stands_in_one_line(cli: Cli, arguments: list[str], code: int, message: str) -> None:
    result = cli("run", "llama", "--weights", GOLDEN / "chat", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[0]
    assert "click" not in result.err


def test_a_checkpoint_without_tokenizer_says_so(cli: Cli) -> None:
    result = cli("run", "llama", "--weights", GOLDEN / "llama2-mha", "--prompt", "hello")
    assert result.code == 3
    assert "the checkpoint has no tokenizer.json, so the prompt must be ids" in result.err
