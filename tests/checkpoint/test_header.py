"""A checkpoint's header alone: opens as the checkpoint does, holds no weight, and changes with the shapes only."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from namedtensor import CheckpointError, zoo
from namedtensor.checkpoint import Checkpoint, load
from namedtensor.checkpoint._discover import discover
from namedtensor.checkpoint._header import HEADER
from namedtensor.cli import main

SOURCES = ["f32.gguf", "bf16.gguf", "q8_0.gguf", "q4_1.gguf", "state_dict.pt", "nested.pth", "sharded"]


def written(source, directory):
    assert main(["header", str(source), "-o", str(directory)]) == 0
    return directory


@pytest.fixture
def weights(tmp_path):
    def write(name, seed, **files):
        directory = tmp_path / name
        directory.mkdir()
        generator = np.random.default_rng(seed)
        save_file({"a": generator.normal(size=(3, 4)).astype(np.float32)}, directory / "model.safetensors")
        for file, text in files.items():
            (directory / file.replace("_", ".")).write_text(text)
        return directory

    return write


@pytest.mark.parametrize("name", SOURCES)
def test_a_header_says_what_the_checkpoint_says(golden, tmp_path, name):
    whole = Checkpoint.open(golden / name)
    header = Checkpoint.open(written(golden / name, tmp_path / "header"))
    assert header.names() == whole.names()
    for tensor in whole.names():
        # How many bytes a tensor takes where it lies, holes included, is the file's own affair.
        assert header.info(tensor)._replace(nbytes=0) == whole.info(tensor)._replace(nbytes=0)
    np.testing.assert_equal(dict(header.metadata), dict(whole.metadata))


def test_lists_of_numbers_in_the_metadata_keep_their_type(tmp_path):
    raw = np.array([1.5, -0.25, np.inf], "<f4")
    content = {"format": "namedtensor checkpoint header", "version": 1, "tensors": {}, "metadata": {"name": "\udc80"}}
    (tmp_path / HEADER).write_text(json.dumps(content | {"arrays": {"scores": ["float32", *raw.tolist()]}}))
    again = Checkpoint.open(written(tmp_path, tmp_path / "again")).metadata
    assert again["name"] == "\udc80"
    assert again["scores"].dtype == np.float32
    np.testing.assert_array_equal(again["scores"], raw)


def test_the_same_shapes_have_the_same_header_whatever_the_weights_are(weights, tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        written(weights(name, seed, config_json="{}"), tmp_path / f"{name}.header")
    files = [{p.name: p.read_bytes() for p in (tmp_path / f"{name}.header").iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert sorted(files[0]) == [HEADER, "config.json"]


def test_files_beside_the_weights_are_there_and_others_are_not(weights, tmp_path):
    source = weights("m", 1, config_json='{"d": 4}', tokenizer_json="{}", README_md="# Hello", model_onnx="large")
    header = Checkpoint.open(written(source, tmp_path / "header"))
    assert header.json("config.json") == {"d": 4}
    assert header.has_file("tokenizer.json")
    assert not header.has_file("README.md")
    assert not header.has_file("model.onnx")


def test_a_program_lowers_alike_from_a_header(tmp_path):
    model = zoo.find("digits")
    whole = model.program().lower("cpu")["classify"].text(locations=False)
    header = written(model.weights, tmp_path / "header")
    assert model.program(header).lower("cpu")["classify"].text(locations=False) == whole


def test_weights_asked_of_a_header_are_an_error_that_says_so(weights, tmp_path):
    header = Checkpoint.open(written(weights("m", 1), tmp_path / "header"))
    with pytest.raises(CheckpointError, match="holds none of its weights; give the checkpoint itself"):
        load(header.weight("a", "b c"), progress=False).result(timeout=60)


def test_nothing_is_written_over(weights, tmp_path, capsys):
    header = written(weights("m", 1), tmp_path / "header")
    before = (header / HEADER).read_bytes()
    assert main(["header", str(weights("n", 1)), "-o", str(header)]) == 2
    assert main(["header", str(tmp_path / "none"), "-o", str(tmp_path / "new")]) == 3
    assert "there is something already" in capsys.readouterr().err
    assert (header / HEADER).read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_an_empty_directory_is_filled(weights, tmp_path):
    (tmp_path / "header").mkdir()
    assert (written(weights("m", 1), tmp_path / "header") / HEADER).is_file()


SOUND = {"format": "namedtensor checkpoint header", "version": 1, "tensors": {}, "metadata": {}, "arrays": {}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "is not a namedtensor checkpoint header"),
        (SOUND | {"version": 2}, "version 2"),
        (SOUND | {"more": 1}, "one too many"),
        (SOUND | {"tensors": []}, "lacks a part"),
        (SOUND | {"tensors": {"w": ["f31", 2]}}, "no format and sizes"),
        (SOUND | {"tensors": {"w": []}}, "no format and sizes"),
        (SOUND | {"tensors": {"w": ["f32", -1]}}, "no format and sizes"),
        (SOUND | {"tensors": {"w": ["f32", True]}}, "no format and sizes"),
        (SOUND | {"tensors": {"w": ["f32", 1 << 60, 1 << 60]}}, "more than any memory"),
        (SOUND | {"tensors": {"w": ["q8_0", 33]}}, "not a multiple of 32"),
        (SOUND | {"arrays": {"k": ["object", 1]}}, "no list of numbers"),
        (SOUND | {"arrays": {"k": ["int8", 300]}}, "what int8 can"),
        (SOUND | {"arrays": {"k": ["int8", [1]]}}, "no list of numbers"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, content, problem):
    (tmp_path / HEADER).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=problem):
        discover(tmp_path)
