"""The task that turns texts into vectors and ranks them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import namedtensor as nt
from namedtensor.tasks import Embed, Embeddings

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "green", "blue")


class Counts(nt.Module):
    """How often each id occurs where the mask is true."""

    scale: nt.Tensor

    def __call__(self, ids: nt.Tensor, mask: nt.Tensor) -> nt.Tensor:
        hot = nt.one_hot(ids, "d", len(WORDS)) * mask.cast("float32")
        return hot.sum("s") * self.scale


def embed(model: Counts, ids: nt.Tensor, mask: nt.Tensor, token_types: nt.Tensor) -> dict[str, nt.Tensor]:
    return {"embedding": model(ids, mask)}


@pytest.fixture(scope="module")
def session() -> nt.Session:
    inputs: dict[str, Any] = {
        name: nt.spec("b s", kind, b=1, s=1)
        for name, kind in (("ids", "int32"), ("mask", "bool"), ("token_types", "int32"))
    }
    entry = nt.entry(embed, buckets={"b": (1, 3), "s": (4, 8)}, **inputs)
    return nt.Program(Counts(nt.wrap(1.0, "").cast("float32")), {"embed": entry}).start(only=())


@pytest.fixture
def task(tmp_path: Path) -> Embed:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    # What a file says about lengths is not what the model says.
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=7)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Embed(str(tmp_path / "tokenizer.json"), max_length=8, vocab_size=len(WORDS))


def counts(text: str) -> list[float]:
    found = Counter(word if word in WORDS else "[UNK]" for word in text.lower().split())
    return [float(found[word]) if word[0] != "[" or word == "[UNK]" else float(word != "[PAD]") for word in WORDS]


TEXTS = ("red", "green green blue red", "Blue", "red what green", "blue blue", "green", "red green blue red green")


@pytest.mark.parametrize("number", range(1, len(TEXTS) + 1))
def test_vectors_come_in_the_order_of_the_texts(session: nt.Session, task: Embed, number: int) -> None:
    found = task.run(session, TEXTS[:number])
    assert found.texts == TEXTS[:number]
    assert found.vectors.tolist() == [counts(text) for text in TEXTS[:number]]
    assert found.tokens == tuple(len(text.split()) + 2 for text in TEXTS[:number])


def test_texts_are_cut_to_the_length_of_the_model(session: nt.Session, task: Embed) -> None:
    found = task.run(session, ["red " * 6, "red " * 7])
    assert found.tokens == (8, 8)
    assert found.truncated == (False, True)
    assert found.vectors[0].tolist() == found.vectors[1].tolist() == counts("red " * 6)


def test_ranking_puts_the_closest_text_first(session: nt.Session, task: Embed) -> None:
    found = task.run(session, ["red red red", "blue blue blue", "red red", "green red red"])
    ranking = found.ranking()
    assert [match.index for match in ranking] == [2, 3, 1]
    assert [match.text for match in ranking] == ["red red", "green red red", "blue blue blue"]
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose([match.similarity for match in ranking], (unit @ unit[0])[[2, 3, 1]], rtol=1e-6)
    np.testing.assert_allclose(found.similarity(), unit @ unit.T, rtol=1e-6)
    assert found.ranking(1)[-1].index == 0


def test_a_vector_of_zeros_is_like_nothing() -> None:
    found = Embeddings(("a", "b"), (1, 1), (False, False), np.array([[0, 0], [1, 1]], np.float32))
    assert found.ranking()[0].similarity == 0


def test_json_holds_every_number(session: nt.Session, task: Embed) -> None:
    found = task.run(session, ["red", "blue red"])
    document = json.loads(json.dumps(found.to_json()))
    assert document["embeddings"][1] == {
        "text": "blue red",
        "tokens": 4,
        "truncated": False,
        "embedding": counts("blue red"),
    }
    assert document["ranking"] == [
        {"index": 1, "text": "blue red", "similarity": pytest.approx(found.similarity()[0, 1])}
    ]


def test_lower_case_is_made_where_the_checkpoint_says_so(session: nt.Session, task: Embed, tmp_path: Path) -> None:
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "cased.json").write_text(json.dumps({**document, "normalizer": None}))
    for lower, text in ((False, "what"), (True, "red")):
        cased = Embed(str(tmp_path / "cased.json"), max_length=8, vocab_size=len(WORDS), lower=lower)
        assert cased.run(session, ["RED"]).vectors[0].tolist() == counts(text)


def test_the_declaration_is_plain_data(task: Embed) -> None:
    assert json.loads(json.dumps(task.to_json()))["max_length"] == 8


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text was given"),
        ([""], "text 1 is empty"),
        (["red", " \n"], "text 2 is empty"),
        (["red", 3], "text 2 is not a text but int"),
        (["\ud800"], "text 1 is not valid Unicode"),
    ],
)
def test_what_is_no_text_is_refused(session: nt.Session, task: Embed, texts: list[Any], message: str) -> None:
    with pytest.raises(nt.InputError, match=message):
        task.run(session, texts)


def test_a_tokenizer_of_another_model_is_refused(session: nt.Session, task: Embed) -> None:
    small = Embed(task.tokenizer, max_length=8, vocab_size=5)
    assert small.run(session, ["red"]).vectors.shape == (1, len(WORDS))
    with pytest.raises(nt.CheckpointError, match="gives id 6, the model knows 5"):
        small.run(session, ["red blue"])


def test_a_damaged_tokenizer_is_refused(session: nt.Session, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    for file in ("broken.json", "none.json"):
        with pytest.raises(nt.CheckpointError, match=file):
            Embed(str(tmp_path / file), max_length=8, vocab_size=7).run(session, ["red"])
