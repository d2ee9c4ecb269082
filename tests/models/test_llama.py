"""Llama, Mistral, Qwen2 and Qwen3 against transformers, in f32, through the compiled entry points."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.llama.config import Config
from namedtensor.models.llama.model import Llama, program

GOLDEN = Path(__file__).parents[1] / "golden" / "llama"
CASES = sorted(path.name for path in GOLDEN.iterdir() if (path / "reference.npz").exists())
OF_EACH_FAMILY = ("llama31-gqa", "mistral-mqa-yarn-window", "qwen2-mha-window", "qwen3-bias-window")
STEPS = 20


@functools.cache
def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name / "reference.npz") as stored:
        return {key: stored[key] for key in stored.files}


@functools.cache
def session(name: str, **options: Any) -> nt.Session:
    """Entry points compile when they are first called."""
    return program(nt.Checkpoint.open(GOLDEN / name), **{"dtype": "float32", **options}).start(only=())


def empty(running: nt.Session) -> list[nn.KVCache]:
    layers = running.program.entries["decode"].inputs["cache"]
    return [nn.KVCache.zeros(**layer.k.sizes, dtype=layer.k.dtype) for layer in layers]


def row(*values: int) -> nt.Tensor:
    return nt.wrap(np.array(values, np.int32), "b")


def tokens(*rows: np.ndarray, size: int) -> nt.Tensor:
    padded = np.zeros((len(rows), size), np.int32)
    for i, values in enumerate(rows):
        padded[i, : len(values)] = values
    return nt.wrap(padded, "b s")


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_there_are_at_least_three_of_each_family():
    families = [json.loads((GOLDEN / name / "config.json").read_text())["model_type"] for name in CASES]
    assert min(families.count(family) for family in ("llama", "mistral", "qwen2", "qwen3")) >= 3


@pytest.mark.parametrize("name", CASES)
def test_prefill_decode_and_greedy_tokens_equal_transformers(name):
    expected, running = reference(name), session(name)
    prompt = expected["prompt"]
    outputs = running.call(
        "prefill", tokens=tokens(prompt, size=64), start=row(0), length=row(len(prompt)), cache=empty(running)
    )
    assert difference(outputs["logits"].numpy("b vocab")[0], expected["prefill"][-1]) < 1e-4

    answer = [int(outputs["logits"].argmax("vocab").numpy("b")[0])]
    for step in range(len(expected["tokens"]) - 1):
        outputs = running.call(
            "decode", token=row(answer[-1]), position=row(len(prompt) + step), cache=outputs["cache"]
        )
        logits = outputs["logits"].numpy("b vocab")[0]
        if step < STEPS:
            assert difference(logits, expected["decode"][step]) < 1e-4
        answer.append(int(logits.argmax()))
    assert answer == expected["tokens"].tolist()


@pytest.mark.parametrize("name", OF_EACH_FAMILY)
def test_logits_of_every_position_equal_transformers(name):
    expected, running = reference(name), session(name)
    scores = running.program.task.score(running, expected["prompt"].tolist())
    assert difference(scores, expected["prefill"]) < 1e-4


@pytest.mark.parametrize("name", OF_EACH_FAMILY)
def test_the_output_of_every_layer_equals_transformers(name):
    expected = reference(name)
    ckpt = nt.Checkpoint.open(GOLDEN / name)
    config = Config.read(ckpt)
    model = nt.load(Llama.load(ckpt, config, "float32"), progress=False).result()
    ids = expected["prompt"]

    @jax.jit
    def outputs(model: Llama, ids: nt.Tensor) -> list[nt.Tensor]:
        positions = nt.arange("s", ids.size("s")).broadcast(b=1)
        found = [model.embedding(ids)]
        for layer in model.layers:
            cache = nn.KVCache.zeros(b=1, kv=config.kv, keys=32, hd=config.head_dim, dtype="float32")
            found.append(layer(found[-1], positions, cache)[0])
        return [*found, model.norm(found[-1])]

    names = ["embedding", *(f"layers.{i}" for i in range(config.layers)), "norm"]
    for part, found in zip(names, outputs(model, nt.wrap(ids[None], "b s")), strict=True):
        assert difference(found.numpy("b s d")[0], expected[part]) < 1e-4, part


def test_a_prompt_longer_than_the_largest_bucket_runs_through_in_pieces():
    expected, running = reference("qwen2-tied"), session("qwen2-tied", context=40)
    assert running.program.entries["prefill"].buckets == {"s": (16,)}
    prompt = expected["prompt"]
    cache = empty(running)
    assert cache[0].capacity == 48
    for start in (0, 16):
        piece = prompt[start : start + 16]
        outputs = running.call(
            "prefill", tokens=tokens(piece, size=16), start=row(start), length=row(len(piece)), cache=cache
        )
        cache = outputs["cache"]
    assert difference(outputs["logits"].numpy("b vocab")[0], expected["prefill"][-1]) < 1e-4
    # Pieces of any length do the same for the logits of all positions.
    assert difference(running.program.task.score(running, prompt.tolist()), expected["prefill"]) < 1e-4


def test_rows_of_a_batch_stand_at_positions_of_their_own():
    expected, running = reference("mistral-window"), session("mistral-window", batch=2, context=64)
    assert running.program.task is None
    prompt, short = expected["prompt"], 10
    outputs = running.call(
        "prefill",
        tokens=tokens(prompt, prompt[:short], size=64),
        start=row(0, 0),
        length=row(len(prompt), short),
        cache=empty(running),
    )
    logits = outputs["logits"].numpy("b vocab")
    assert difference(logits[0], expected["prefill"][-1]) < 1e-4
    assert difference(logits[1], expected["prefill"][short - 1]) < 1e-4
    outputs = running.call(
        "decode",
        token=row(int(expected["tokens"][0]), int(prompt[short])),
        position=row(len(prompt), short),
        cache=outputs["cache"],
    )
    logits = outputs["logits"].numpy("b vocab")
    assert difference(logits[0], expected["decode"][0]) < 1e-4
    assert difference(logits[1], expected["prefill"][short]) < 1e-4


def test_in_the_checkpoints_own_type_logits_stay_close():
    expected, running = reference("llama32-tied"), session("llama32-tied", dtype=None)
    assert running.program.entries["decode"].inputs["cache"][0].k.dtype == "bfloat16"
    scores = running.program.task.score(running, expected["prompt"].tolist())
    assert scores.dtype == np.float32
    # bfloat16 has 8 bits; a few roundings in a row.
    assert difference(scores, expected["prefill"]) < 0.05


def test_alike_layers_are_lowered_once():
    lowered = program(nt.Checkpoint.open(GOLDEN / "qwen2-mha-window"), dtype="float32").lower("cpu", "decode")
    text = lowered["decode"].text(locations=False)
    # Of three layers the first has no window, and stands where it is used.
    assert text.count("func.func private @Block") == 1
    assert text.count("call @Block") == 2


def test_the_cache_is_updated_in_place():
    lowered = program(nt.Checkpoint.open(GOLDEN / "qwen3-tied"), dtype="float32").lower("cpu", "decode")
    # Keys and values of two layers.
    assert lowered["decode"].text(locations=False).count("tf.aliasing_output") == 4


@pytest.fixture
def edited(tmp_path):
    """A checkpoint whose config.json has some keys changed; None removes one, NULL sets it to null."""

    def make(name: str = "llama2-mha", **changes: Any) -> nt.Checkpoint:
        folder = tmp_path / name
        shutil.copytree(GOLDEN / name, folder)
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            config[key] = None if value is NULL else value
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in _removed(changes)}))
        return nt.Checkpoint.open(folder)

    return make


NULL = object()
QWEN2 = {"model_type": "qwen2", "num_key_value_heads": 4}


def _removed(changes: dict[str, Any]) -> set[str]:
    return {key for key, value in changes.items() if value is None}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral' is not implemented; implemented: llama, mistral"),
        ({"model_type": None}, "model_type is missing"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is not implemented"),
        ({"pretraining_tp": 2}, "pretraining_tp is not implemented, it is 2"),
        ({"num_local_experts": 8}, "num_local_experts is not implemented"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is not implemented"),
        ({"hidden_act": "xielu"}, "'xielu' is not implemented"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary embedding of type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "rotary embedding of type 'longrope'"),
        ({"sliding_window": 64}, "sliding_window is not implemented for model_type 'llama'"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types is not implemented for model_type 'llama'"),
        ({**QWEN2, "layer_types": ["full_attention", "linear_attention"]}, "'linear_attention' is not"),
        ({**QWEN2, "layer_types": ["full_attention"]}, "must list a type for each of 2 layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number from 1"),
        ({"num_attention_heads": 5}, "hidden_size must be a multiple of num_attention_heads, 5"),
        ({"num_key_value_heads": 3}, "num_attention_heads must be a multiple of num_key_value_heads, 3"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps must be a number above 0, it is 'tiny'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"head_dim": 7}, "cannot be divided into pairs"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(edited, changes, problem):
    with pytest.raises(nt.ModelError, match=problem):
        program(edited(**changes))


def test_neutral_values_of_such_keys_are_accepted(edited):
    program(edited(pretraining_tp=1, quantization_config=NULL, num_local_experts=0, attention_dropout=0.1))


def test_a_null_window_is_none_and_an_absent_one_is_mistrals(edited):
    assert Config.read(edited("mistral-head-dim")).windows == (None, None)
    assert Config.read(edited("mistral-window", sliding_window=None)).windows == (4096, 4096)


def test_weights_of_another_model_are_refused(edited):
    with pytest.raises(nt.ModelError, match="weights that this model does not use") as caught:
        program(edited("qwen2-tied", model_type="mistral", sliding_window=NULL))
    assert "self_attn.k_proj.bias" in str(caught.value)


def test_a_weight_that_is_missing_is_named(edited):
    with pytest.raises(nt.CheckpointError, match=r"no weight 'model.layers.2.input_layernorm.weight'"):
        program(edited(num_hidden_layers=3))
    with pytest.raises(nt.CheckpointError, match=r"no weight 'lm_head.weight'"):
        program(edited("qwen2-tied", tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"head_dim": 14}, "model.layers.0.self_attn.q_proj.weight"),
        ({"num_key_value_heads": 2}, "model.layers.0.self_attn.k_proj.weight"),
        ({"hidden_size": 96}, "model.embed_tokens.weight"),
        ({"intermediate_size": 89}, "model.layers.0.mlp.gate_proj.weight"),
        ({"vocab_size": 191}, "model.embed_tokens.weight"),
    ],
)
def test_sizes_that_differ_from_the_weights_are_refused(edited, changes, weight):
    with pytest.raises(nt.AxisError, match=weight):
        program(edited(**changes))


@pytest.mark.parametrize("context", [0, 257])
def test_a_context_beyond_the_models_own_is_refused(context):
    with pytest.raises(nt.ModelError, match="context must be from 1 to 256"):
        program(nt.Checkpoint.open(GOLDEN / "llama2-mha"), context=context)


def test_an_empty_batch_is_refused():
    with pytest.raises(nt.ModelError, match="batch must be at least 1"):
        program(nt.Checkpoint.open(GOLDEN / "llama2-mha"), batch=0)
