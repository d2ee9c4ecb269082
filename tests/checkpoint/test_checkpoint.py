"""`nt.Checkpoint`: what a source holds is found, weights are declared by axis names, and mistakes are explained."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import namedtensor as nt
from namedtensor.checkpoint import Checkpoint, Weight

TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "model.layers.0.q_proj.weight": np.arange(96, dtype=np.float32).reshape(24, 4),
    "model.layers.0.q_proj.bias": np.zeros(24, np.float32),
    "model.norm.weight": np.ones(4, np.float16),
    "lm_head.weight": np.ones((5, 4), np.float32),
    "count": np.array(3, np.int32),
}


@pytest.fixture
def folder(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"heads": 3}')
    return tmp_path


@pytest.fixture
def checkpoint(folder):
    return Checkpoint.open(folder)


# -- names and scopes --------------------------------------------------------------------------------------------------


def test_names_are_sorted_and_can_be_asked_for(checkpoint):
    assert checkpoint.names() == sorted(TENSORS)
    assert len(checkpoint) == 5
    assert "count" in checkpoint
    assert "model.norm" not in checkpoint
    assert 3 not in checkpoint


def test_a_scope_drops_the_prefix_from_names(checkpoint):
    layer = checkpoint.scope("model").scope("layers.0")
    assert layer.names() == ["q_proj.bias", "q_proj.weight"]
    assert "q_proj.bias" in layer
    assert layer.info("q_proj.bias").shape == (24,)
    assert checkpoint.scope("model.layers.0").names() == layer.names()
    assert checkpoint.scope("").names() == checkpoint.names()
    assert checkpoint.scope("mod").names() == []


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_weight_is_a_tensor_whose_groups_are_split(checkpoint):
    weight = checkpoint.weight("model.layers.0.q_proj.weight", "(heads hd) d", hd=8)
    assert weight.sizes == {"heads": 3, "hd": 8, "d": 4}
    assert weight.dtype == np.float32


def test_the_leaf_says_what_will_be_loaded_and_from_where(checkpoint, folder):
    leaf = checkpoint.weight("model.norm.weight", "d", dtype="float32").array
    assert isinstance(leaf, Weight)
    assert leaf.name == "model.norm.weight"
    assert leaf.dtype == np.float32
    assert (leaf.shape, leaf.ndim, leaf.size, leaf.nbytes) == ((4,), 1, 4, 16)
    assert leaf.source == str(folder / "model.safetensors")


def test_nothing_is_read_when_a_weight_is_declared(folder, checkpoint):
    (folder / "model.safetensors").unlink()
    checkpoint.weight("lm_head.weight", "v d")


def test_jax_takes_weights_for_shapes(checkpoint):
    weight = checkpoint.weight("lm_head.weight", "v d")
    assert jax.eval_shape(jnp.sum, weight.array) == jax.ShapeDtypeStruct((), jnp.float32)


def test_computing_with_a_weight_says_to_load_it(checkpoint):
    with pytest.raises(nt.ModelError, match=r"nt\.load"):
        checkpoint.weight("lm_head.weight", "v d").data("v d")


# -- mistakes ----------------------------------------------------------------------------------------------------------


def message(call, kind=nt.CheckpointError):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_a_name_that_is_not_there_shows_the_closest_ones_and_the_source(checkpoint, folder):
    report = message(lambda: checkpoint.weight("model.layers.0.q_porj.weight", "a b"))
    assert "no weight 'model.layers.0.q_porj.weight'" in report
    assert "closest  'model.layers.0.q_proj.weight'" in report
    assert f"source   {folder} (5 tensors)" in report
    assert "test_checkpoint.py:" in report


def test_among_many_layers_the_closest_name_is_the_one_of_the_same_layer(tmp_path):
    names = [f"layers.{i}.{part}.weight" for i in range(300) for part in ("gate_proj", "up_proj", "down_proj")]
    save_file(dict.fromkeys(names, np.zeros(0, np.float32)), tmp_path / "m.safetensors")
    report = message(lambda: Checkpoint.open(tmp_path / "m.safetensors").weight("layers.211.gate_porj.weight", "a"))
    assert "closest  'layers.211.gate_proj.weight'" in report


def test_a_name_without_its_prefix_says_which_scope_has_it(checkpoint):
    assert "ckpt.scope('model')" in message(lambda: checkpoint.weight("norm.weight", "d"))


def test_a_name_with_a_prefix_too_many_says_to_leave_it_out(checkpoint):
    report = message(lambda: checkpoint.scope("transformer").weight("lm_head.weight", "v d"))
    assert "asked   'lm_head.weight' in scope 'transformer'" in report
    assert "leave 'transformer.' out" in report


def test_a_name_like_no_other_says_how_to_list_them(checkpoint):
    assert "ckpt.names()" in message(lambda: checkpoint.info("zzz"))


def test_a_spec_of_another_rank_shows_the_stored_shape(checkpoint):
    report = message(lambda: checkpoint.weight("lm_head.weight", "v"), nt.AxisError)
    assert "'lm_head.weight'" in report
    assert "shape (5, 4)" in report


def test_a_size_that_does_not_divide_shows_stored_axis_and_group(checkpoint):
    report = message(lambda: checkpoint.weight("model.layers.0.q_proj.weight", "(heads hd) d", hd=7), nt.AxisError)
    assert "stored axis 0 has size 24" in report
    assert "hd=7" in report
    assert "shape (24, 4)" in report


def test_a_conversion_that_loses_meaning_is_refused(checkpoint):
    report = message(lambda: checkpoint.weight("lm_head.weight", "v d", dtype="int8"), nt.DTypeError)
    assert "float32 values do not become int8" in report
    assert "shape (5, 4), f32" in report


# -- files beside the weights ------------------------------------------------------------------------------------------


def test_files_beside_the_weights_are_found(checkpoint, folder):
    assert checkpoint.has_file("config.json")
    assert not checkpoint.has_file("tokenizer.json")
    assert checkpoint.json("config.json") == {"heads": 3}
    assert checkpoint.file("config.json") == folder / "config.json"
    assert Checkpoint.open(folder / "model.safetensors").json("config.json") == {"heads": 3}


def test_a_file_that_is_not_there_says_where_it_was_looked_for(checkpoint, folder):
    report = message(lambda: checkpoint.file("tokenizer.json"))
    assert "no file 'tokenizer.json'" in report
    assert str(folder) in report


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", "..", "a\\b", "a\0b"])
def test_a_file_name_that_leads_out_of_the_place_is_refused(checkpoint, name):
    assert "refuses the file name" in message(lambda: checkpoint.file(name))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("[" * 9000 + " " * 90_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "not valid JSON"),
        ("[" + "[]," * 100_000 + "1]", "100,001 objects and lists in 300,003 bytes"),
        (b"\xff\xfe", "not valid JSON"),
    ],
    ids=["cut short", "key twice", "deep", "long number", "many lists", "not UTF-8"],
)
def test_damaged_json_is_one_line(checkpoint, folder, content, problem):
    path = folder / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = message(lambda: checkpoint.json("config.json"))
    assert problem in report
    assert report.startswith(str(path))
    assert "\n" not in report


# -- finding the checkpoint --------------------------------------------------------------------------------------------


def sharded(folder, weight_map, **shards):
    for shard, tensors in shards.items():
        save_file({name: np.ones(2, np.float32) for name in tensors}, folder / f"{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_opened_through_their_index(tmp_path, values):
    sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"}, one=["a"], two=["b", "unlisted"])
    assert Checkpoint.open(tmp_path).names() == ["a", "b"]
    assert values(tmp_path)["b"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        ({"a": "two.safetensors"}, "names the shard 'two.safetensors', which is not there"),
        ({"b": "one.safetensors"}, "says that 'b' is in 'one.safetensors', which does not hold it"),
        ({"a": "../one.safetensors"}, "which is not a file beside the index"),
        ({"a": "/etc/passwd"}, "which is not a file beside the index"),
        ({"a": "x" * 5000}, "too long"),
        ({"a": ".."}, "which is not a file beside the index"),
        ({"a": 1}, 'needs "weight_map"'),
        ([], 'needs "weight_map"'),
        ({f"t{i}": f"s{i}" for i in range(10_001)}, "10,001 shards"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path, weight_map, problem):
    sharded(tmp_path, weight_map, one=["a"])
    report = message(lambda: Checkpoint.open(tmp_path))
    assert problem in report
    assert "\n" not in report


def test_a_directory_prefers_safetensors_and_the_usual_names(folder, golden):
    shutil.copy(golden / "state_dict.pt", folder / "pytorch_model.bin")
    shutil.copy(golden / "q8_0.gguf", folder / "m.gguf")
    save_file({"other": np.ones(1)}, folder / "adapter.safetensors")
    assert "lm_head.weight" in Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("file", "name"), [("state_dict.pt", "f32"), ("nested.pth", "state_dict.weight"), ("q8_0.gguf", "q8_0")]
)
def test_a_directory_with_one_checkpoint_of_any_name_is_opened(tmp_path, golden, file, name):
    shutil.copy(golden / file, tmp_path / file)
    (tmp_path / "optimizer.pt").write_bytes(b"not weights")
    assert name in Checkpoint.open(tmp_path)


def test_an_ambiguous_directory_lists_what_it_holds(tmp_path):
    for name in ("a", "b"):
        save_file({"w": np.ones(1)}, tmp_path / f"{name}.safetensors")
    report = message(lambda: Checkpoint.open(tmp_path))
    assert "holds 2 checkpoints: a.safetensors, b.safetensors; name the one you mean" in report


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "the source is empty"),
        ("x" * 5000, "too long"),
        ("~nobody-of-this-name/m", "home"),
        ("missing", "no such file or directory"),
        (".", "holds no checkpoint"),
        ("hf://name", "write hf://org/repo"),
        ("ftp://host/m.safetensors", "use a path, hf://, https://, s3:// or gs://"),
        ("https:///m.safetensors", "needs a host"),
        ("https://[::1/m.safetensors", "needs a host"),
        ("s3://bucket/m.safetensors?versionId=1", "has a query"),
        ("http://example.com/m.safetensors", "use https://"),
        ("https://user:secret@example.com/m.safetensors", "refuses credentials"),
        ("https://example.com/m.safetensors#part", "fragment"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why_in_one_line(tmp_path, monkeypatch, source, problem):
    monkeypatch.chdir(tmp_path)
    report = message(lambda: Checkpoint.open(source))
    assert problem in report
    assert "\n" not in report
    assert "secret" not in report


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "m.bin").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert "none of safetensors, PyTorch zip checkpoint and GGUF" in message(
        lambda: Checkpoint.open(tmp_path / "m.bin")
    )


def test_the_format_is_told_by_content_rather_than_name(tmp_path, golden):
    shutil.copy(golden / "state_dict.pt", tmp_path / "weights.dat")
    assert "f32" in Checkpoint.open(tmp_path / "weights.dat")
