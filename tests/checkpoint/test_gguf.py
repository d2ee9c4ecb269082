"""GGUF: files of the gguf package are read back, and a header that lies is refused."""

import struct

import numpy as np
import pytest

from namedtensor import CheckpointError
from namedtensor.checkpoint import Checkpoint

FORMATS = ["f32", "f16", "bf16", "q8_0", "q4_0"]


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, code, value):
    return text(key) + struct.pack("<I", code) + value


def u32(key, value):
    return pair(key, 4, struct.pack("<I", value))


def described(name="w", shape=(2, 4), code=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + axes + struct.pack("<IQ", code, offset)


@pytest.fixture
def gguf(tmp_path):
    """Write a GGUF file from pieces of header, which may break every rule."""

    def write(pairs=(), tensors=(), data=b"", *, version=3, counts=None, alignment=32, cut=None):
        counts = counts or (len(tensors), len(pairs))
        header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join((*pairs, *tensors))
        path = tmp_path / "m.gguf"
        path.write_bytes((header + bytes(-len(header) % alignment) + data)[:cut])
        return path

    return write


def refused(path, problem):
    with pytest.raises(CheckpointError, match=problem) as caught:
        Checkpoint.open(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# -- what the gguf package wrote ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_the_gguf_package(golden, values, name):
    expected = np.load(golden / "values.npz")[f"{name}.gguf|{name}"]
    loaded = values(golden / f"{name}.gguf")
    np.testing.assert_array_equal(loaded[name].astype(np.float32), expected)
    np.testing.assert_array_equal(loaded["last"], np.arange(5, dtype=np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_block_formats_become_float32_or_the_dtype_asked_for(golden, values, name):
    checkpoint = Checkpoint.open(golden / f"{name}.gguf")
    assert checkpoint.info(name).shape == (3, 64)
    assert checkpoint.info(name).format == name
    if name.startswith("q"):
        assert checkpoint.info(name).dtype == np.float32
    expected = np.load(golden / "values.npz")[f"{name}.gguf|{name}"]
    loaded = values(checkpoint, name, dtype="bfloat16")[name]
    np.testing.assert_array_equal(loaded, expected.astype(loaded.dtype))


def test_a_format_that_is_not_decoded_opens_and_is_refused_as_a_weight_by_name(golden):
    checkpoint = Checkpoint.open(golden / "q4_1.gguf")
    assert checkpoint.info("q4_1") == ((3, 64), None, 3 * 2 * 20, "q4_1")
    with pytest.raises(CheckpointError, match="'q4_1' is stored as q4_1, which is not implemented"):
        checkpoint.weight("q4_1", "a b")


def test_metadata_has_python_values(golden):
    metadata = Checkpoint.open(golden / "f32.gguf").metadata
    assert metadata["general.architecture"] == "test"
    assert metadata["test.u8"] == 200
    assert metadata["test.i64"] == -(1 << 40)
    assert metadata["test.f32"] == 0.5
    assert metadata["test.bool"] is True
    assert metadata["test.text"] == "gewöhnlich"
    assert metadata["test.texts"] == ["a", "ß", ""]
    assert metadata["test.floats"].tolist() == [1.0, 2.5]


# -- what it would not write -------------------------------------------------------------------------------------------


def test_axes_come_in_numpy_order(gguf, values):
    matrix = np.arange(8, dtype=np.float32).reshape(2, 4)
    for version in (2, 3):
        path = gguf(tensors=[described(shape=(2, 4))], data=matrix.tobytes(), version=version)
        np.testing.assert_array_equal(values(path)["w"], matrix)


def test_alignment_is_taken_from_the_metadata(gguf, values):
    pairs = [u32("general.alignment", 128)]
    tensors = [described("a", (3,)), described("b", (2,), offset=128)]
    data = np.arange(32, dtype=np.float32).tobytes() + np.ones(2, np.float32).tobytes()
    assert values(gguf(pairs, tensors, data, alignment=128))["b"].tolist() == [1, 1]


def test_text_that_is_not_utf8_comes_out_as_it_went_in(gguf):
    token = b"\xe4\xbd"
    path = gguf([pair("t", 9, struct.pack("<IQ", 8, 1) + text(token))])
    assert Checkpoint.open(path).metadata["t"][0].encode(errors="surrogateescape") == token


DATA = bytes(32)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param({"version": 1}, "is GGUF version 1", id="version 1"),
        pytest.param({"version": 9}, "is GGUF version 9", id="version 9"),
        pytest.param({"version": 3 << 24}, "big-endian", id="big-endian"),
        pytest.param({"counts": (1 << 40, 0)}, "claims 1,099,511,627,776 tensors", id="many tensors"),
        pytest.param({"counts": (0, 1 << 63)}, "claims 0 tensors and", id="many metadata values"),
        pytest.param({"counts": (1, 0), "data": DATA}, "name of 0 bytes", id="no tensor where one is claimed"),
        pytest.param(
            {"counts": (0, 2), "data": bytes(2), "cut": 30}, "ends inside its header|name of 0", id="cut short"
        ),
        pytest.param({"pairs": [u32("a", 1), u32("a", 2)]}, "metadata 'a' stands twice", id="metadata twice"),
        pytest.param({"pairs": [pair("a", 77, b"")]}, "has type 77", id="unknown metadata type"),
        pytest.param({"pairs": [pair("a", 7, b"\2")]}, "neither 0 nor 1", id="bool that is none"),
        pytest.param(
            {"pairs": [pair("a", 8, struct.pack("<Q", 1 << 60))]},
            "ends inside its header",
            id="text longer than the file",
        ),
        pytest.param(
            {"pairs": [pair("a", 9, struct.pack("<IQ", 0, 1 << 62))]}, "ends inside its header", id="array too long"
        ),
        pytest.param({"pairs": [pair("a", 9, struct.pack("<IQ", 8, 1 << 62))]}, "claims .* texts", id="texts too many"),
        pytest.param({"pairs": [pair("a", 9, struct.pack("<IQ", 9, 1))]}, "array of type 9", id="array of arrays"),
        pytest.param({"pairs": [u32("general.alignment", 48)]}, "not a power of two", id="alignment 48"),
        pytest.param({"pairs": [u32("general.alignment", 0)]}, "not a power of two", id="alignment 0"),
        pytest.param({"pairs": [u32("split.count", 3)]}, "one of 3 parts", id="one part of several"),
        pytest.param({"tensors": [text(b"\xff")]}, "not UTF-8", id="name that is not UTF-8"),
        pytest.param({"tensors": [text("x" * 70_000)]}, "name of 70,000 bytes", id="long name"),
        pytest.param({"tensors": [described(shape=(1,) * 5)], "data": DATA}, "has 5 axes", id="too many axes"),
        pytest.param({"tensors": [described(code=99)], "data": DATA}, "type 99", id="unknown format"),
        pytest.param({"tensors": [described(code=4)], "data": DATA}, "type 4", id="format that was removed"),
        pytest.param(
            {"tensors": [described(code=8, shape=(2, 33))], "data": DATA}, "multiple of 32", id="half a block"
        ),
        pytest.param({"tensors": [described(code=8, shape=())], "data": DATA}, "multiple of 32", id="scalar in blocks"),
        pytest.param(
            {"tensors": [described(shape=(1 << 40, 1 << 40))], "data": DATA}, "more than any memory", id="overflow"
        ),
        pytest.param({"tensors": [described(shape=(2, 5))], "data": DATA}, "tensors end at byte", id="data cut short"),
        pytest.param({"tensors": [described(offset=1 << 63)], "data": DATA}, "does not follow", id="offset far away"),
        pytest.param({"tensors": [described(offset=16)], "data": DATA}, "does not follow", id="offset not aligned"),
        pytest.param(
            {"tensors": [described("a"), described("b")], "data": 2 * DATA}, "'b' overlaps the one before", id="overlap"
        ),
        pytest.param({"tensors": [described(), described()], "data": DATA}, "'w' stands twice", id="name twice"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_in_one_line_that_names_it(gguf, arguments, problem):
    refused(gguf(**arguments), problem)


@pytest.mark.parametrize("cut", [5, 20, 24, 30, 60])
def test_a_file_cut_short_is_refused(golden, tmp_path, cut):
    (tmp_path / "m.gguf").write_bytes((golden / "q8_0.gguf").read_bytes()[:cut])
    refused(tmp_path / "m.gguf", "ends inside its header|claims")
