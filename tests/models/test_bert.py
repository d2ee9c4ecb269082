"""BERT against transformers, and MiniLM's published weights against sentence-transformers' arithmetic."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor.models.bert.config import Config, Pooling, text_limits
from namedtensor.models.bert.model import Bert, program
from namedtensor.models.minilm import model as minilm
from namedtensor.tasks import Embeddings
from scripts import fetch_minilm

GOLDEN = Path(__file__).parents[1] / "golden" / "bert"
CASES = ("gelu", "gelu-new-three-types", "relu-old-names")


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def inputs(reference: Mapping[str, np.ndarray]) -> dict[str, nt.Tensor]:
    return {
        "ids": nt.wrap(reference["ids"], "b s"),
        "mask": nt.wrap(reference["mask"] != 0, "b s"),
        "token_types": nt.wrap(reference["token_types"], "b s"),
    }


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nt.Session, Mapping[str, np.ndarray]]:
    encoder = program(nt.Checkpoint.open(GOLDEN / request.param), lengths=(), batches=(4,))
    reference = dict(np.load(GOLDEN / request.param / "reference.npz"))
    # Padded to the one length that was compiled, which must not change anything.
    width = encoder.entries["encode"].buckets["s"][0] - reference["ids"].shape[1]
    for name in ("ids", "mask", "token_types"):
        reference[name] = np.pad(reference[name], ((0, 0), (0, width)))
    return encoder.start(only=()), reference


def test_states_agree_with_transformers(case: tuple[nt.Session, Mapping[str, np.ndarray]]) -> None:
    session, reference = case
    found = session.call("encode", **inputs(reference))
    length = reference["last_hidden_state"].shape[1]
    kept = reference["mask"][:, :length] != 0
    states = found["last_hidden_state"].numpy("b s d")[:, :length]
    assert largest_difference(states[kept], reference["last_hidden_state"][kept]) < 1e-4
    assert largest_difference(found["pooler_output"].numpy("b pooled"), reference["pooler_output"]) < 1e-4


def test_embeddings_are_normalised_means_of_the_states(case: tuple[nt.Session, Mapping[str, np.ndarray]]) -> None:
    session, reference = case
    states, length = reference["last_hidden_state"], reference["last_hidden_state"].shape[1]
    weights = reference["mask"][:, :length, None]
    means = (states * weights).sum(1) / weights.sum(1)
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert largest_difference(session.call("embed", **inputs(reference))["embedding"].numpy("b d"), expected) < 1e-4


def test_every_layer_agrees_with_transformers() -> None:
    checkpoint = nt.Checkpoint.open(GOLDEN / "gelu")
    reference = np.load(GOLDEN / "gelu" / "reference.npz")
    model = nt.load(Bert.load(checkpoint, Config.read(checkpoint))).result()
    given, kept = inputs(reference), reference["mask"] != 0
    x = model.embeddings(given["ids"], given["token_types"])
    assert largest_difference(x.numpy("b s d")[kept], reference["embedding"][kept]) < 1e-4
    for place, layer in enumerate(model.layers):
        x = layer(x, given["mask"])
        assert largest_difference(x.numpy("b s d")[kept], reference[f"layers.{place}"][kept]) < 1e-4


def test_the_pooler_may_be_absent(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copy(GOLDEN / "gelu" / "config.json", tmp_path)
    tensors = load_file(GOLDEN / "gelu" / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("pooler.")}, tmp_path / "model.safetensors")
    encoder = program(nt.Checkpoint.open(tmp_path))
    outputs = jax.eval_shape(
        encoder.entries["encode"].fn,
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), encoder.model),
        **encoder.variants("encode")[0].inputs,
    )
    assert list(outputs) == ["last_hidden_state"]


def test_weights_convert_to_the_type_that_is_asked_for() -> None:
    encoder = program(nt.Checkpoint.open(GOLDEN / "gelu"), dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in encoder.weights().values()} == {"bfloat16"}


def test_without_a_tokenizer_there_is_no_task() -> None:
    assert program(nt.Checkpoint.open(GOLDEN / "gelu")).task is None


# -- configuration --------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path: Path) -> Any:
    """A copy of a checkpoint with some keys of a JSON file set; None removes a key."""

    def change(file: str = "config.json", **keys: Any) -> nt.Checkpoint:
        for source in ("config.json", "model.safetensors"):
            if not (tmp_path / source).exists():
                shutil.copy(GOLDEN / "gelu" / source, tmp_path)
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in {**content, **keys}.items() if value is not None}
        path.write_text(json.dumps(content))
        return nt.Checkpoint.open(tmp_path)

    return change


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta' is not implemented; implemented: bert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not implemented"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder is not implemented, it is True"),
        ({"add_cross_attention": True}, "add_cross_attention is not implemented"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is not implemented"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is not implemented"),
        ({"hidden_act": "snake"}, "'snake' is not implemented"),
        ({"num_attention_heads": 5}, "num_attention_heads does not divide hidden_size"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number"),
        ({"hidden_size": "wide"}, "hidden_size must be a whole number"),
        ({"hidden_size": True}, "hidden_size must be a whole number"),
        ({"layer_norm_eps": -1}, "layer_norm_eps must be a number above 0"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(changed: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(nt.ModelError, match=message):
        Config.read(changed(**keys))


ODD: tuple[Any, ...] = (
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    1e-320,
    "x",
    "",
    [],
    [[]],
    [1, "x"],
    {},
    {"0": 1},
    True,
    2**31,
)


@pytest.mark.parametrize("key", json.loads((GOLDEN / "gelu" / "config.json").read_text()))
def test_odd_values_are_refused_or_do_not_matter(changed: Any, tmp_path: Path, key: str) -> None:
    original = json.loads((GOLDEN / "gelu" / "config.json").read_text())
    for value in ODD:
        checkpoint = changed(**{**original, key: value})
        with contextlib.suppress(nt.NamedTensorError):
            program(checkpoint).weights()


@pytest.mark.parametrize("content", ["[]", "3", "{", '{"model_type": "bert"}', '{"a": 1, "a": 2}'])
def test_a_damaged_configuration_is_refused_in_one_line(changed: Any, tmp_path: Path, content: str) -> None:
    checkpoint = changed()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(nt.NamedTensorError) as caught:
        Config.read(checkpoint)
    assert "\n" not in str(caught.value)


def test_more_layers_than_there_are_weights_are_refused(changed: Any) -> None:
    with pytest.raises(nt.CheckpointError, match=r"encoder\.layer\.2"):
        program(changed(num_hidden_layers=3))


def modules(*kinds: str) -> str:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    return json.dumps([{"path": paths[kind], "type": f"sentence_transformers.models.{kind}"} for kind in kinds])


@pytest.mark.parametrize(
    ("kinds", "key", "expected"),
    [
        (("Transformer", "Pooling", "Normalize"), "pooling_mode_mean_tokens", Pooling("mean", True)),
        (("Transformer", "Pooling"), "pooling_mode_mean_tokens", Pooling("mean", False)),
        (("Transformer", "Pooling"), "pooling_mode_cls_token", Pooling("cls", False)),
    ],
)
def test_pooling_is_read_from_the_files_of_sentence_transformers(
    changed: Any, tmp_path: Path, kinds: tuple[str, ...], key: str, expected: Pooling
) -> None:
    checkpoint = changed("1_Pooling/config.json", word_embedding_dimension=48, **{key: True})
    (tmp_path / "modules.json").write_text(modules(*kinds))
    assert Pooling.read(checkpoint, Config.read(checkpoint)) == expected


@pytest.mark.parametrize(
    ("kinds", "keys", "message"),
    [
        (("Transformer", "Pooling", "Dense"), {}, "Transformer then Pooling then Dense is not implemented"),
        (("Transformer", "Pooling"), {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens is not implemented"),
        (
            ("Transformer", "Pooling"),
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_cls_token and pooling_mode_mean_tokens is not implemented",
        ),
        (("Transformer", "Pooling"), {}, "no pooling mode is not implemented"),
        (("Transformer", "Pooling"), {"word_embedding_dimension": 50}, "is not the width of the model"),
    ],
)
def test_other_modules_and_poolings_are_refused_by_name(
    changed: Any, tmp_path: Path, kinds: tuple[str, ...], keys: dict[str, Any], message: str
) -> None:
    checkpoint = changed("1_Pooling/config.json", **keys)
    (tmp_path / "modules.json").write_text(modules(*kinds))
    with pytest.raises(nt.ModelError, match=message):
        Pooling.read(checkpoint, Config.read(checkpoint))


def test_the_vector_of_the_first_token_can_be_what_is_asked_for(changed: Any, tmp_path: Path) -> None:
    checkpoint = changed("1_Pooling/config.json", pooling_mode_cls_token=True)
    (tmp_path / "modules.json").write_text(modules("Transformer", "Pooling"))
    reference = np.load(GOLDEN / "gelu" / "reference.npz")
    session = program(checkpoint, lengths=(12,), batches=(4,)).start(only=())
    found = session.call("embed", **inputs(reference))["embedding"].numpy("b d")
    assert largest_difference(found, reference["last_hidden_state"][:, 0]) < 1e-4


def test_the_length_of_texts_is_limited_by_what_the_files_say(changed: Any) -> None:
    config = Config.read(changed())
    assert text_limits(changed(), config) == (40, False)
    assert text_limits(changed("tokenizer_config.json", model_max_length=10**30), config) == (40, False)
    assert text_limits(changed("tokenizer_config.json", model_max_length=30), config) == (30, False)
    files = changed("sentence_bert_config.json", max_seq_length=20, do_lower_case=True)
    assert text_limits(files, config) == (20, True)
    with pytest.raises(nt.ModelError, match="max_seq_length exceeds max_position_embeddings"):
        text_limits(changed("sentence_bert_config.json", max_seq_length=100), config)
    with pytest.raises(nt.ModelError, match="default_prompt_name is not implemented"):
        text_limits(
            changed("config_sentence_transformers.json", default_prompt_name="query"),
            Config.read(changed("sentence_bert_config.json", max_seq_length=20)),
        )


# -- the published weights --------------------------------------------------------------------------------------------

published = pytest.mark.skipif(
    not fetch_minilm.present(), reason="the weights of all-MiniLM-L6-v2 are not here; `make demo` fetches them"
)
SENTENCES = json.loads((GOLDEN / "minilm.json").read_text())["sentences"]
# One of the reference's texts is empty, which the task refuses.
TEXTS = [sentence["text"] for sentence in SENTENCES if sentence["text"]]


@pytest.fixture(scope="module")
def session() -> nt.Session:
    return minilm.program(nt.Checkpoint.open(fetch_minilm.place()), lengths=(32,), batches=(4,)).start(only=())


@pytest.fixture(scope="module")
def found(session: nt.Session) -> Embeddings:
    result = session.program.task.run(session, TEXTS)
    assert isinstance(result, Embeddings)
    return result


@published
def test_texts_become_the_tokens_of_the_reference(session: nt.Session) -> None:
    encoded = session.program.task.encode(TEXTS)
    assert [encoding.ids for encoding in encoded] == [sentence["ids"] for sentence in SENTENCES if sentence["text"]]


@published
def test_embeddings_of_real_sentences_agree_with_the_reference(found: Embeddings) -> None:
    reference = np.load(GOLDEN / "minilm.npz")["embeddings"]
    expected = np.stack([row for row, sentence in zip(reference, SENTENCES, strict=True) if sentence["text"]])
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert (found.vectors * expected).sum(1).min() > 0.9999
    assert largest_difference(found.vectors, expected) < 1e-4


@published
def test_sentences_that_mean_the_same_rank_first(found: Embeddings) -> None:
    assert found.ranking()[0].text == "A fast, dark-coloured fox leaps above a sleepy hound."
    question = found.texts.index("How do I reset my password?")
    assert found.ranking(question)[0].text.startswith("I forgot my login credentials")


@published
def test_long_texts_are_cut_and_said_to_be(found: Embeddings) -> None:
    assert [tokens for tokens, cut in zip(found.tokens, found.truncated, strict=True) if cut] == [256]
