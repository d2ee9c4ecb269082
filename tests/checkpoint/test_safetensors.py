"""safetensors: what the reference writer writes is read back, and what breaks a rule of the format is refused."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from namedtensor import CheckpointError
from namedtensor.checkpoint import Checkpoint

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DATA = np.array([1, 2], np.float32).tobytes()

TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f16": np.arange(3, dtype=np.float16),
    "bf16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "i32": np.array([[-1], [2]], np.int32),
    "u8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(7, np.int32),
    "empty": np.zeros((0, 4), np.float32),
    "häuser.0": np.ones(1, np.float32),
}


def test_every_tensor_of_the_reference_writer_is_read_back(tmp_path, values):
    save_file(TENSORS, tmp_path / "m.safetensors", {"made by": "a test"})
    checkpoint = Checkpoint.open(tmp_path / "m.safetensors")
    assert checkpoint.names() == sorted(TENSORS)
    assert checkpoint.metadata == {"made by": "a test"}
    for name, loaded in values(checkpoint).items():
        assert loaded.dtype == TENSORS[name].dtype
        np.testing.assert_array_equal(loaded, TENSORS[name])


def test_info_says_how_a_tensor_is_stored(tmp_path):
    save_file(TENSORS, tmp_path / "m.safetensors")
    info = Checkpoint.open(tmp_path / "m.safetensors").info("bf16")
    assert info == ((2,), np.dtype(ml_dtypes.bfloat16), 4, "bf16")


def test_64_bit_integers_become_what_jax_holds(tmp_path, values):
    save_file({"ids": np.array([5, -7], np.int64)}, tmp_path / "m.safetensors")
    loaded = values(tmp_path / "m.safetensors")["ids"]
    assert loaded.dtype == np.int32
    assert loaded.tolist() == [5, -7]


def test_a_64_bit_integer_that_does_not_fit_is_an_error_and_not_another_number(tmp_path, values):
    save_file({"ids": np.array([1 << 40], np.int64)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"'ids' holds .* do not fit int32"):
        values(tmp_path / "m.safetensors")


def test_bytes_that_are_no_bools_become_true(safetensors, values):
    path = safetensors({"b": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\x00\x01\x80")
    loaded = values(path)["b"]
    assert loaded.view(np.uint8).tolist() == [0, 1, 1]


def test_spaces_after_the_header_are_padding(safetensors, values):
    path = safetensors(b'{"w": {"dtype":"F32","shape":[2],"data_offsets":[0,8]} }   \n', DATA)
    assert values(path)["w"].tolist() == [1, 2]


def entry(**changes):
    return {"w": ENTRY | changes}


@pytest.mark.parametrize(
    ("header", "data", "problem"),
    [
        pytest.param(b"[]", b"", "does not begin with '{'", id="not an object"),
        pytest.param(b"{" * 100_000, b"", "should be '\"'", id="deep nesting"),
        pytest.param(b'{"w":' + b"[" * 4000 + b"}", b"", "not valid JSON", id="deep nesting in an entry"),
        pytest.param(b'{"w": {' + b" " * 5000 + b"}}", b"", "does not end within", id="endless entry"),
        pytest.param(b'{"w": 1}', b"", "not valid JSON|needs exactly", id="number for an entry"),
        pytest.param(b'{"w": ["}"]}', b"", "not valid JSON", id="list for an entry"),
        pytest.param(b'{"\xff": {}}', b"", "not UTF-8", id="not UTF-8"),
        pytest.param(b'{"\\ud800": {}}', b"", "damaged", id="half a surrogate pair"),
        pytest.param(b'{"w\n": {}}', b"", "damaged", id="control character in a name"),
        pytest.param(b'{"w" {}}', b"", "should be ':'", id="no colon"),
        pytest.param(b"{} x", b"", "follows the header", id="text after the header"),
        pytest.param({"w": {"dtype": "F32", "shape": [2]}}, DATA, "needs exactly one dtype", id="no offsets"),
        pytest.param(entry(extra=1), DATA, "needs exactly one dtype", id="unknown field"),
        pytest.param(entry(dtype="F99"), DATA, "dtype 'F99', which is not one of BOOL", id="unknown dtype"),
        pytest.param(entry(dtype=["F32"]), DATA, "which is not one of", id="dtype that is a list"),
        pytest.param(entry(shape=[-2]), DATA, "not a list of sizes", id="negative size"),
        pytest.param(entry(shape=[2.0]), DATA, "not a list of sizes", id="size that is a float"),
        pytest.param(entry(shape=[True, 2]), DATA, "not a list of sizes", id="size that is a bool"),
        pytest.param(entry(shape=[3]), DATA, "has 8 bytes, its shape .* takes 12", id="bytes do not fit the shape"),
        pytest.param(entry(shape=[1 << 62, 1 << 62]), DATA, "more than any memory", id="sizes that overflow"),
        pytest.param(
            entry(shape=[0, 1 << 70], data_offsets=[0, 0]), b"", "more than any memory", id="overflow beside zero"
        ),
        pytest.param(entry(shape=[1] * 40), DATA, "40 axes", id="too many axes"),
        pytest.param(entry(data_offsets=[8, 0]), DATA, "not .begin, end.", id="offsets the wrong way"),
        pytest.param(entry(data_offsets=[0, 8, 8]), DATA, "not .begin, end.", id="three offsets"),
        pytest.param(entry(), DATA[:7], "end at byte .* the file at", id="data cut short"),
        pytest.param(entry(), DATA + b"x", "1 bytes follow the last tensor", id="data after the last tensor"),
        pytest.param(entry(data_offsets=[4, 12]), DATA + b"1234", "a hole of 4 bytes after the header", id="hole"),
        pytest.param(
            {"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}},
            DATA + b"1234",
            "'b' overlaps tensor 'a'",
            id="overlap",
        ),
        pytest.param({"a": ENTRY, "b": ENTRY}, DATA, "'b' overlaps tensor 'a'", id="two tensors in one place"),
        pytest.param(
            b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            DATA,
            "'w' stands twice",
            id="name that stands twice",
        ),
        pytest.param(
            b'{"w":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}',
            DATA,
            "exactly one",
            id="two dtypes",
        ),
        pytest.param({"__metadata__": {"a": 1}}, b"", "should be '\"'", id="metadata that is no text"),
        pytest.param(b'{"__metadata__":{},"__metadata__":{}}', b"", "stands twice", id="metadata twice"),
        pytest.param(b'{"__metadata__":{"a":"b","a":"c"}}', b"", "'a' stands twice", id="metadata key twice"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_in_one_line_that_names_it(safetensors, header, data, problem):
    path = safetensors(header, data)
    with pytest.raises(CheckpointError, match=problem) as caught:
        Checkpoint.open(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [9, 1 << 20, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused_before_it_is_read(safetensors, length):
    with pytest.raises(CheckpointError, match=r"claims a header of [\d,]+ bytes"):
        Checkpoint.open(safetensors(b"{}", length=length))


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 9])
def test_a_file_too_short_for_any_format_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="too few"):
        Checkpoint.open(tmp_path / "m.safetensors")


def test_what_a_hostile_name_holds_does_not_reach_the_terminal(safetensors):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(safetensors({"\x1b[31m\u202e\n" * 100: ENTRY | {"shape": [3]}}, DATA))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
