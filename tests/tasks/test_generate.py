"""A prompt in, text out: with a small Llama, its tokenizer and its chat template."""

import json
import shutil
from pathlib import Path

import pytest

import namedtensor as nt
from namedtensor.models.llama.model import program
from namedtensor.tasks import Generate, Sampling

GOLDEN = Path(__file__).parents[1] / "golden" / "llama"
CHAT = GOLDEN / "chat"
REFERENCE = json.loads((CHAT / "reference.json").read_text())
ANSWER = REFERENCE["answer"]
MESSAGES = REFERENCE["conversations"][0]["messages"]


@pytest.fixture(scope="module")
def session():
    return program(nt.Checkpoint.open(CHAT), dtype="float32").start(only=())


@pytest.fixture(scope="module")
def task(session):
    return session.program.task


def test_a_conversation_is_answered_as_transformers_does(task, session):
    shown: list[str] = []
    found = task.run(session, messages=MESSAGES, temperature=0, on_text=shown.append)
    assert list(found.prompt_ids) == ANSWER["ids"]
    assert list(found.ids) == ANSWER["tokens"]
    assert found.text == "".join(shown) == ANSWER["text"]
    assert found.finish_reason == "eos"
    assert len(shown) > 20


@pytest.mark.parametrize("case", REFERENCE["texts"], ids=lambda case: repr(case["text"][:12]))
def test_a_text_gets_the_tokenizers_special_tokens(task, case):
    assert task.ids(case["text"]) == case["ids"]


def test_a_conversation_gets_those_of_the_template_only(task):
    for case in REFERENCE["conversations"]:
        if case["add_generation_prompt"]:
            assert task.ids(messages=case["messages"]) == case["ids"]


def test_the_stream_gives_pieces_and_then_the_answer(task, session):
    stream = task.stream(session, prompt_ids=ANSWER["ids"], temperature=0)
    first = next(stream)
    with pytest.raises(nt.InputError, match="not complete"):
        _ = stream.generation
    assert first + "".join(stream) == ANSWER["text"]
    assert stream.generation.text == ANSWER["text"]


def test_a_stop_string_ends_the_answer_before_it(task, session):
    text = ANSWER["text"]
    stop = text[len(text) // 2 :][:5]
    shown: list[str] = []
    found = task.run(session, prompt_ids=ANSWER["ids"], temperature=0, stop=["never", stop], on_text=shown.append)
    assert found.text == "".join(shown) == text[: text.index(stop)]
    assert found.finish_reason == "stop"
    assert len(found.ids) < len(ANSWER["tokens"])
    assert list(found.ids) == ANSWER["tokens"][: len(found.ids)]


def test_max_tokens_ends_the_answer(task, session):
    found = task.run(session, prompt_ids=ANSWER["ids"], temperature=0, max_tokens=7)
    assert list(found.ids) == ANSWER["tokens"][:7]
    assert found.finish_reason == "length"


def test_the_context_ends_the_answer(session, task):
    ids = [5 + i % 200 for i in range(task.context - 3)]
    found = task.run(session, prompt_ids=ids, temperature=2.0, seed=3)
    assert found.finish_reason == "context"
    assert len(found.ids) == 3


def test_one_seed_gives_one_answer(task, session):
    def answer(seed):
        return task.run(session, prompt_ids=[5, 6, 7], seed=seed, temperature=1.5, top_p=1.0, max_tokens=12).ids

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in (1, 2, 3, 2**32 - 1)}) == 4


def test_a_repetition_penalty_holds_for_prompt_and_answer(task, session):
    # So strong that no id occurs twice.
    found = task.run(session, prompt_ids=[5, 6, 7], temperature=0, repetition_penalty=1e6, max_tokens=40, stop=())
    assert len({5, 6, 7, *found.ids}) == 3 + len(found.ids)


def test_settings_come_from_the_checkpoint_unless_they_are_given(task, session):
    assert task.sampling == Sampling(temperature=0.7, top_p=0.9)
    found = task.run(session, prompt_ids=[5], max_tokens=1, top_k=3)
    assert found.sampling == Sampling(temperature=0.7, top_p=0.9, top_k=3)


def test_numbers_for_a_machine(task, session):
    found = task.run(session, prompt_ids=[5, 6], temperature=0, max_tokens=3).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["prompt_tokens"] == 2
    assert found["answer_tokens"] == len(found["ids"]) == 3
    assert found["finish_reason"] == "length"
    assert found["seconds"] >= found["first_token_seconds"] > 0
    assert found["tokens_per_second"] > 0
    assert json.loads(json.dumps(task.to_json()))["context"] == task.context


def test_only_what_a_prompt_needs_has_to_be_compiled(task, session):
    assert task.variants(session.program, range(10)) == ("prefill.s16", "decode", "sample")
    assert task.variants(session.program, range(17)) == ("prefill.s64", "decode", "sample")
    assert task.variants(session.program, range(256)) == ("prefill.s256", "decode", "sample")
    assert task.variants(session.program, range(260)) == ("prefill.s16", "prefill.s256", "decode", "sample")


def test_without_a_tokenizer_ids_go_in_and_come_out(task, session):
    plain = Generate(context=task.context, vocab=task.vocab, eos=task.eos)
    pieces = plain.stream(session, prompt_ids=ANSWER["ids"], temperature=0)
    assert list(pieces) == []
    assert list(pieces.generation.ids) == ANSWER["tokens"]
    assert pieces.generation.text is None
    with pytest.raises(nt.InputError, match=r"no tokenizer\.json, so the prompt must be ids"):
        plain.run(session, "text")
    with pytest.raises(nt.InputError, match="stop strings need a tokenizer"):
        plain.run(session, prompt_ids=[5], stop="x")
    with pytest.raises(nt.InputError, match="no chat template"):
        Generate(context=8, vocab=420, tokenizer=task.tokenizer).ids(messages=MESSAGES)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "one prompt is needed"),
        ({"prompt": "a", "prompt_ids": [5]}, "one prompt is needed, not both prompt and ids"),
        ({"prompt_ids": []}, "the prompt is empty"),
        ({"prompt_ids": [5, 420]}, "token 1 of the prompt is 420; ids go from 0 to 419"),
        ({"prompt_ids": [-1]}, "token 0 of the prompt is -1"),
        ({"prompt_ids": [5.5]}, "token 0 of the prompt is 5.5"),
        ({"prompt_ids": [5] * 256}, "the prompt has 256 tokens, and the context of 256 has room for 255"),
        ({"prompt": "\ud800"}, "not valid Unicode"),
        ({"prompt_ids": [5], "max_tokens": 0}, "max_tokens must be a whole number from 1, not 0"),
        ({"prompt_ids": [5], "seed": -1}, "seed must be a whole number from 0"),
        ({"prompt_ids": [5], "seed": 2**32}, "seed must be a whole number from 0"),
        ({"prompt_ids": [5], "stop": [""]}, "at least one character"),
        ({"prompt_ids": [5], "temperature": -1}, "temperature must be a number from 0, not -1"),
        ({"prompt_ids": [5], "temperature": float("nan")}, "temperature must be a number"),
        ({"prompt_ids": [5], "top_k": 1.5}, "top_k must be a whole number"),
        ({"prompt_ids": [5], "top_p": 1.1}, "top_p must be a number from 0 to 1"),
        ({"prompt_ids": [5], "min_p": True}, "min_p must be a number"),
        ({"prompt_ids": [5], "repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
        ({"prompt_ids": [5], "temprature": 1}, "no setting 'temprature'[\\s\\S]*did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(task, session, given, problem):
    with pytest.raises(nt.InputError, match=problem):
        task.stream(session, **given)


@pytest.fixture
def described(tmp_path):
    """The task of a checkpoint with another generation_config.json."""

    def make(generation, config=None):
        for file in CHAT.iterdir():
            shutil.copy(file, tmp_path)
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return Generate.of(nt.Checkpoint.open(tmp_path), context=64, vocab=420)

    return make


def test_eos_ids_come_from_the_generation_config_and_then_from_the_config(described):
    assert described({"eos_token_id": [1, 3]}).eos == (1, 3)
    assert described({"eos_token_id": 3}).eos == (3,)
    assert described({}).eos == (1,)
    assert described({}, config={}).eos == ()


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, Sampling()),
        ({"temperature": 0.7, "top_p": 0.9}, Sampling()),
        ({"do_sample": True}, Sampling(temperature=1.0)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1},
         Sampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.1)),
        ({"do_sample": False, "repetition_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"do_sample": True, "top_k": None}, Sampling(temperature=1.0)),
    ],
)  # fmt: skip
def test_settings_are_those_that_transformers_would_use(described, generation, expected):
    assert described(generation).sampling == expected


@pytest.mark.parametrize(
    ("generation", "error", "problem"),
    [
        ([], nt.CheckpointError, "generation_config.json does not hold an object"),
        ({"eos_token_id": "3"}, nt.ModelError, "eos_token_id must be ids from 0 to 419, not '3'"),
        ({"eos_token_id": [420]}, nt.ModelError, "eos_token_id must be ids"),
        ({"do_sample": True, "top_p": 7}, nt.ModelError, "generation_config.json: top_p must be a number from 0 to 1"),
    ],
)
def test_a_damaged_generation_config_is_refused(described, generation, error, problem):
    with pytest.raises(error, match=problem):
        described(generation)
