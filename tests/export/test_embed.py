"""Archives of programs that embed texts at work: vectors, rankings and warnings as of `namedtensor run`."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from namedtensor import zoo
from namedtensor.cli import main
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from tests.export.running import confined, refused, run, run_alone
from tests.export.unpack import unpack

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")

GOLDEN = Path(__file__).parents[1] / "golden" / "bert" / "gelu"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "law", "the", "on", "##s", "straße", "σίσυφος"]
OPTIONS = ("--set", "lengths=8", "--set", "batches=1,3")
TEXTS = [
    "a cat",
    "the law",
    "Dogs on the law",
    "a cat on a dog on a cat on a dog",
    "THE STRASSE",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "a cat",
    "a unknown word",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with random weights and a WordPiece tokenizer, laid out as sentence-transformers does."""
    directory = tmp_path_factory.mktemp("checkpoint") / "bert"
    shutil.copytree(GOLDEN, directory)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # What a file says about lengths is not what the model says.
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=7)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def bert(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of that model, for two lengths and two sizes of a batch."""
    file = zoo.find("bert")
    packed = tmp_path_factory.mktemp("archive") / "bert.tar.zst"
    archive.build(file.program(str(weights), file.parse(OPTIONS[1::2])), packed, ["cpu:x86-64-v2"])
    return unpack(packed, tmp_path_factory.mktemp("root"))


@pytest.fixture
def expected(weights: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `namedtensor run` prints for texts: on stdout and on stderr."""

    def call(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        assert main(["run", "bert", "--weights", str(weights), *OPTIONS, *map(str, arguments)]) == 0
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return call


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for ours, theirs in zip(found["embeddings"], wanted["embeddings"], strict=True):
        assert {**ours, "embedding": None} == {**theirs, "embedding": None}
        np.testing.assert_allclose(ours["embedding"], theirs["embedding"], rtol=0, atol=1e-5)
    ours, theirs = ([match["similarity"] for match in document["ranking"]] for document in (found, wanted))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert {match["index"]: match["text"] for match in found["ranking"]} == dict(enumerate(texts_of(found)[1:], 1))


def texts_of(document: dict[str, Any]) -> list[str]:
    return [row["text"] for row in document["embeddings"]]


@pytest.mark.skipif(not confined(), reason="bubblewrap is not here, or may not make namespaces")
def test_it_runs_where_there_is_nothing_but_the_archive(bert: Path, tmp_path: Path, expected: Any) -> None:
    found = run_alone(bert, tmp_path, "a cat", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert_same(json.loads(found.stdout), json.loads(expected("a cat", "--json")[0]))


def test_vectors_and_ranking_are_those_of_namedtensor_run(bert: Path, expected: Any) -> None:
    found = run(bert, *TEXTS, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout)
    assert document["task"] == "embed"
    assert_same(document, json.loads(expected(*TEXTS, "--json")[0]))


def test_a_text_has_the_same_vector_alone_and_among_others(bert: Path) -> None:
    together = json.loads(run(bert, *TEXTS, "--json").stdout)["embeddings"]
    for text, row in zip(TEXTS, together, strict=True):
        (alone,) = json.loads(run(bert, text, "--json").stdout)["embeddings"]
        np.testing.assert_allclose(alone["embedding"], row["embedding"], rtol=0, atol=1e-5)


def test_people_see_the_same_lines(bert: Path, expected: Any) -> None:
    # Texts that are equally close to the first may change places.
    apart = TEXTS[:5]
    assert run(bert, *apart).stdout == expected(*apart)[0]
    ours, theirs = (np.array(text.split(), float) for text in (run(bert, "a cat").stdout, expected("a cat")[0]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_vectors_are_written_to_a_file(bert: Path, tmp_path: Path) -> None:
    found = run(bert, *TEXTS, "--vectors", tmp_path / "vectors.npy")
    assert found.stdout == f"wrote {tmp_path / 'vectors.npy'}: {len(TEXTS)} × 48 float32\n"
    document = json.loads(run(bert, *TEXTS, "--json").stdout)
    np.testing.assert_array_equal(
        np.load(tmp_path / "vectors.npy"), np.array([row["embedding"] for row in document["embeddings"]], np.float32)
    )


def test_a_dash_reads_texts_from_stdin(bert: Path, monkeypatch: pytest.MonkeyPatch, expected: Any) -> None:
    lines = "a dog\n\n \t\nthe law\r\nthe cat  "
    found = json.loads(run(bert, "a cat", "-", "--json", stdin=lines).stdout)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="utf-8"))
    assert_same(found, json.loads(expected("a cat", "-", "--json")[0]))
    assert texts_of(found) == ["a cat", "a dog", "the law", "the cat  "]


def test_what_was_cut_off_is_said(bert: Path, expected: Any) -> None:
    long = "a cat " * 100
    found = run(bert, long, "a cat")
    out, err = expected(long, "a cat")
    assert (found.returncode, found.stdout) == (0, out)
    assert found.stderr == err.replace("namedtensor:", "bert:")
    assert "warning: only the first 40 tokens were read of 'a cat" in found.stderr


def test_what_is_wrong_stands_in_one_line(bert: Path) -> None:
    assert "bert embeds texts: give one for its vector, or several" in refused(bert, code=2)
    assert "text 2 is empty" in refused(bert, "a cat", " \u2003\x1f", code=3)
    assert "there is no directory nowhere" in refused(bert, "a cat", "--vectors", "nowhere/x.npy", code=2)
    assert "--top" in refused(bert, "a cat", "--top", "3", code=2)
    assert "stdin holds no text" in refused(bert, "-", code=3, stdin="\n")
    assert "stdin is not valid UTF-8 (at byte 2)" in refused(bert, "-", code=3, stdin=b"a \xff")


def test_a_tokenizer_of_another_model_is_refused(bert: Path, tmp_path: Path) -> None:
    program = Path(shutil.copytree(bert, tmp_path / "bert"))
    manifest = json.loads((program / "bundle.json").read_text())
    manifest["task"]["vocab_size"] = 4
    (program / "bundle.json").write_text(json.dumps(manifest))
    assert "its tokenizer gives id 5, the model knows 4" in refused(program, "a cat", code=1)
    (program / "assets" / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: it has 2 bytes" in refused(program, "a cat", code=1)
