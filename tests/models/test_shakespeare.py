"""The small Llama with weights of its own: the very text that transformers writes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from namedtensor import zoo
from namedtensor.cli import main
from namedtensor.lowering import Session

GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "shakespeare.json").read_text())


@pytest.fixture(scope="module")
def session() -> Session:
    """In float32, as the reference was computed."""
    return zoo.find("shakespeare").program(options={"dtype": "float32"}).start()


@pytest.mark.parametrize("reference", GOLDEN, ids=[r["prompt"].split("\n")[0] for r in GOLDEN])
def test_greedy_text_is_the_text_of_transformers(session: Session, reference: dict[str, Any]) -> None:
    task = session.program.task
    assert task.ids(reference["prompt"]) == reference["ids"]
    found = task.run(session, reference["prompt"], max_tokens=len(reference["answer"]), temperature=0.0)
    assert list(found.ids) == reference["answer"]
    assert found.text == reference["text"]


def test_the_model_goes_by_its_own_name_and_brings_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.find("shakespeare").program().name == "shakespeare"
    assert main(["run", "shakespeare", "--prompt", "ROMEO.\n", "--max-tokens", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "shakespeare"
    assert found["sampling"]["temperature"] == 0.8
    assert len(found["ids"]) == 20
