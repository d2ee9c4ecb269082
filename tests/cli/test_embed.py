"""`run` on programs that embed texts, with a small BERT and a tokenizer of whole words."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli

GOLDEN = Path(__file__).parents[1] / "golden" / "bert" / "gelu"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "law", "the"]
FAST = ("--set", "lengths=16", "--set", "batches=2")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint as sentence-transformers lays one out."""
    shutil.copytree(GOLDEN, tmp_path / "bert")
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tmp_path / "bert"


def test_one_text_gives_its_vector(cli: Cli, weights: Path, tmp_path: Path) -> None:
    result = cli("run", "bert", "--weights", weights, *FAST, "a cat")
    assert (result.code, result.err) == (0, "")
    printed = np.array(result.out.split(), float)
    document = cli("run", "bert", "--weights", weights, *FAST, "a cat", "--json").json
    (only,) = document["embeddings"]
    assert (only["text"], only["truncated"]) == ("a cat", False)
    np.testing.assert_allclose(printed, only["embedding"], atol=1e-6)
    file = tmp_path / "vectors.npy"
    assert cli("run", "bert", "--weights", weights, *FAST, "a cat", "--vectors", file).code == 0
    np.testing.assert_allclose(np.load(file), [only["embedding"]], atol=1e-6)


def test_several_are_ranked_against_the_first(cli: Cli, weights: Path) -> None:
    texts = ["a cat", "the law", "a dog", "a cat"]
    result = cli("run", "bert", "--weights", weights, *FAST, *texts)
    first, *ranked = result.out.splitlines()
    assert first == "a cat"
    assert ranked[0].split()[0] == "1.0000"
    assert ranked[0].endswith("a cat")
    assert sorted(line.split("  ")[-1].strip() for line in ranked) == ["a cat", "a dog", "the law"]
    ranking = cli("run", "bert", "--weights", weights, *FAST, *texts, "--json").json["ranking"]
    similarities = [match["similarity"] for match in ranking]
    assert ranking[0]["index"] == 3
    assert similarities == sorted(similarities, reverse=True)


def test_a_dash_reads_texts_from_stdin(cli: Cli, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a dog\n\nthe law\r\n"))
    document = cli("run", "bert", "--weights", weights, *FAST, "a cat", "-", "--json").json
    assert [row["text"] for row in document["embeddings"]] == ["a cat", "a dog", "the law"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    empty = cli("run", "bert", "--weights", weights, *FAST, "-")
    assert (empty.code, empty.err) == (3, "namedtensor: error: stdin holds no text\n")


def test_what_was_cut_off_is_said(cli: Cli, weights: Path) -> None:
    result = cli("run", "bert", "--weights", weights, *FAST, "a cat " * 100)
    assert result.code == 0
    assert "warning: only the first" in result.err
    assert len(result.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "bert embeds texts: give one for its vector, or several"),
        (["a cat", " "], 3, "text 2 is empty"),
        (["a cat", "--vectors", "nowhere/x.npy"], 2, "--vectors nowhere/x.npy: there is no directory nowhere"),
        (["a cat", "--top", "3"], 2, "bert does not take --top: its task is embed, which takes TEXT..., --vectors"),
    ],
)
def test_what_is_wrong_stands_in_one_line(
    cli: Cli, weights: Path, arguments: list[str], code: int, message: str
) -> None:
    result = cli("run", "bert", "--weights", weights, *FAST, *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[0]
