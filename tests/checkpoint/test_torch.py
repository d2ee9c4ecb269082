"""PyTorch zip checkpoints: what PyTorch wrote is read back, and nothing that a pickle names is ever run."""

import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from namedtensor import CheckpointError
from namedtensor.checkpoint import Checkpoint

# -- a pickle assembler: what torch.save emits, and what it never would ------------------------------------------------


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def storage(key="0", kind="FloatStorage", count=6):
    return tuple_of(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(count)) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, of=None):
    sizes = [tuple_of(*map(number, axes)) for axes in (shape, strides)]
    arguments = tuple_of(of or storage(), number(offset), *sizes, b"\x89", b"N")
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def dict_of(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


VALUES = np.arange(6, dtype=np.float32)


@pytest.fixture
def archive(tmp_path):
    """Write a checkpoint around a pickle; `records` replaces or adds other records."""

    def write(root, compression=zipfile.ZIP_STORED, **records):
        path = tmp_path / "m.pt"
        content = {"data.pkl": b"\x80\x02" + root + b".", "data/0": VALUES.tobytes(), "version": b"3\n"} | records
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, data in content.items():
                file.writestr(f"m/{name}", data)
        return path

    return write


def refused(path, problem):
    with pytest.raises(CheckpointError, match=problem) as caught:
        Checkpoint.open(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# -- what PyTorch wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["state_dict.pt", "protocol4.bin"])
def test_every_dtype_and_view_that_torch_wrote_is_read_back(golden, values, file):
    expected = np.load(golden / "values.npz")
    loaded = values(golden / file)
    assert set(loaded) == {key.removeprefix("state_dict.pt|") for key in expected if key.startswith("state_dict.pt|")}
    for name, array in loaded.items():
        wanted = expected[f"state_dict.pt|{name}"]
        np.testing.assert_array_equal(array.astype(wanted.dtype), wanted, err_msg=name)


def test_dtypes_are_the_ones_that_torch_wrote(golden):
    checkpoint = Checkpoint.open(golden / "state_dict.pt")
    assert checkpoint.info("bf16").dtype == ml_dtypes.bfloat16
    assert checkpoint.info("f8").dtype == ml_dtypes.float8_e4m3fn
    assert checkpoint.info("f8_wide").dtype == ml_dtypes.float8_e5m2
    assert checkpoint.info("u16") == ((2,), np.dtype(np.uint16), 4, "u16")
    assert checkpoint.info("transposed").shape == (4, 3)


def test_nested_dicts_and_lists_become_dotted_names(golden, values):
    expected = np.load(golden / "values.npz")
    checkpoint = Checkpoint.open(golden / "nested.pth")
    assert "optimizer.state.0.exp_avg" in checkpoint
    names = [key.removeprefix("nested.pth|") for key in expected if key.startswith("nested.pth|")]
    for name, array in values(checkpoint, *names).items():
        np.testing.assert_array_equal(array, expected[f"nested.pth|{name}"], err_msg=name)
    assert checkpoint.scope("state_dict").names() == ["bias", "weight"]


def test_shards_are_found_through_the_index(golden, values):
    expected = np.load(golden / "values.npz")
    for source in (golden / "sharded", golden / "sharded" / "pytorch_model.bin.index.json"):
        for name, array in values(source).items():
            wanted = expected[f"sharded|{name}"]
            np.testing.assert_array_equal(array.astype(wanted.dtype), wanted)


def test_a_view_that_repeats_elements_is_refused(golden):
    refused(golden / "expanded.pt", "repeats elements .* save a .contiguous")


# -- pickles that torch.save would not write ---------------------------------------------------------------------------


def test_the_assembler_itself_makes_a_checkpoint(archive, values):
    np.testing.assert_array_equal(values(archive(dict_of(w=tensor())))["w"], VALUES.reshape(2, 3))


class Touch:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_that_a_pickle_names_is_executed(archive, tmp_path, protocol):
    marker = tmp_path / "executed"
    root = pickle.dumps({"w": Touch(marker)}, protocol=protocol)
    refused(archive(root[2:-1] if protocol == 2 else root[:-1]), "names '(posix|nt).system'")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch load", "torch._utils _rebuild_qtensor", "numpy.core.multiarray _reconstruct"]
)
def test_a_name_that_no_state_dict_needs_is_refused_by_name(archive, name):
    module, name = name.split()
    refused(archive(dict_of(w=f"c{module}\n{name}\n)R".encode())), f"names '{module}.{name}', which no state dict")


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        pytest.param(b"", "does not end with one value", id="nothing"),
        pytest.param(b"}}", "does not end with one value", id="two values"),
        pytest.param(b"(", "does not end with one value", id="a mark"),
        pytest.param(tensor(), "holds one View rather than a dict", id="a tensor alone"),
        pytest.param(number(3), "holds one int rather than a dict", id="a number alone"),
        pytest.param(b"i", "opcode 0x69", id="opcode INST"),
        pytest.param(b"\x82\x01", "opcode 0x82", id="opcode EXT1"),
        pytest.param(b"}R", "takes a value that is not there", id="call without a function"),
        pytest.param(b"}}R", "calls something with what is not a tuple", id="call with a dict"),
        pytest.param(b"})R", "calls dict in a way", id="call of a dict"),
        pytest.param(b"h\x07", "never remembered", id="memo that is empty"),
        pytest.param(b"}r\xff\xff\xff\x7f", "numbers its memo out of order", id="memo of two billion"),
        pytest.param(b"X\xff\xff\xff\xff", "ends early", id="text of four gigabytes"),
        pytest.param(b"B\xff\xff\xff\xff", "ends early", id="bytes of four gigabytes"),
        pytest.param(b"\x8a\xff" + b"\xff" * 255, "a number of 255 bytes", id="number of 2040 bits"),
        pytest.param(b"u", "no mark", id="items without a mark"),
        pytest.param(b"(}u", "sets items of something that is not a dict", id="items of nothing"),
        pytest.param(b"}(" + text("a") + b"u", "an item without a value", id="key without a value"),
        pytest.param(b"}(" + text("a") + b"N" + text("a") + b"Nu", "the key 'a' twice", id="key twice"),
        pytest.param(b"}()Nu", "a key of type tuple", id="key that is a tuple"),
        pytest.param(b"]}b", "sets attributes of something that is not a dict", id="attributes of a list"),
        pytest.param(b"]" * 70_000, "too many objects|values at once", id="a deep stack"),
        pytest.param(b"](" + b"}" * 60_000 + b"e", "too many objects", id="many objects"),
        pytest.param(b"]q\x00h\x00a", "within themselves|nested more", id="list within itself"),
        pytest.param(
            b"]q\x00" + b"".join(b"](" + b"h%c" % i * 9 + b"eq%c0" % (i + 1) for i in range(20)) + b"0h\x14",
            "within themselves",
            id="a billion laughs",
        ),
        pytest.param(b"c" + b"x" * 600, "name that does not end", id="endless name"),
        pytest.param(dict_of(**{"x" * 2000: tensor()}), "name.* too long", id="long name"),
    ],
)
def test_a_pickle_beyond_a_state_dict_is_refused(archive, root, problem):
    refused(archive(root), problem)


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        pytest.param(tensor(shape=(2, 4), strides=(4, 1)), "reaches beyond its 24 bytes", id="beyond the storage"),
        pytest.param(tensor(offset=1), "reaches beyond its 24 bytes", id="offset beyond the storage"),
        pytest.param(tensor(shape=(2, -3)), "are not sizes", id="negative size"),
        pytest.param(tensor(strides=(-3, 1)), "are not sizes", id="negative stride"),
        pytest.param(tensor(offset=-1), "are not sizes", id="negative offset"),
        pytest.param(tensor(strides=(1,)), "are not sizes", id="fewer strides than axes"),
        pytest.param(
            tensor(shape=(1 << 31, 1 << 31), strides=(0, 0)), "more than any memory", id="sizes that overflow"
        ),
        pytest.param(tensor(shape=(1 << 20,), strides=(0,)), "repeats elements", id="a million of one element"),
        pytest.param(tensor(shape=(3, 3), strides=(1, 1)), "repeats elements", id="rows that overlap"),
        pytest.param(tensor(of=storage(key="7")), "no record for the storage '7'", id="storage that is not there"),
        pytest.param(tensor(of=storage(key="../version")), "no record for the storage", id="storage elsewhere"),
        pytest.param(tensor(of=storage(count=5)), "should have 20 bytes and has 24", id="storage of another size"),
        pytest.param(tensor(of=storage(count=-6)), "should have -24 bytes", id="storage of a negative size"),
        pytest.param(tensor(of=storage(kind="QInt8Storage")), "names 'torch.QInt8Storage'", id="quantized storage"),
        pytest.param(tensor(of=b"N"), "not a storage", id="tensor of nothing"),
        pytest.param(b"NQ", "refers to a storage in a way", id="storage by nothing"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(archive, view, problem):
    refused(archive(dict_of(w=view)), problem)


def test_two_tensors_of_one_dotted_name_are_refused(archive):
    refused(archive(dict_of(**{"a.b": tensor(), "a": dict_of(b=tensor())})), "two tensors have the name 'a.b'")


def test_views_may_share_a_storage_but_not_without_bound(archive):
    slices = {f"w{i}_{j}": tensor((2, 2), (3, 1), 0) for i in range(3) for j in range(3)}
    assert len(Checkpoint.open(archive(dict_of(**slices))).names()) == 9
    count = 2000
    big = {"data/0": bytes(4 * count)}
    views = {f"w{i}": tensor((count // 2,), (1,), i, of=storage(count=count)) for i in range(count // 2)}
    refused(archive(dict_of(**views), **big), "overlap more often")


# -- the archive -------------------------------------------------------------------------------------------------------


def test_compressed_records_are_refused(archive):
    refused(archive(dict_of(w=tensor()), zipfile.ZIP_DEFLATED), "is compressed; save it again with torch.save")


def test_torchscript_is_refused_by_name(archive):
    refused(archive(dict_of(), **{"constants.pkl": b"\x80\x02)."}), "is a TorchScript archive")


def test_the_other_byte_order_is_refused(archive):
    refused(archive(dict_of(w=tensor()), byteorder=b"big"), "other byte order")


def test_a_zip_file_without_a_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("readme", "hello")
    refused(tmp_path / "m.pt", "not a PyTorch checkpoint")


@pytest.mark.parametrize("keep", [1, 30, 100, -1, -23])
def test_a_file_cut_short_is_refused(archive, keep):
    path = archive(dict_of(w=tensor()))
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "it was cut short|damaged|none of")


def test_a_record_twice_in_the_directory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("m/data.pkl", b"\x80\x02}.")
    refused(tmp_path / "m.pt", "stands twice")


def test_two_records_over_the_same_bytes_are_refused(archive):
    path = archive(dict_of(w=tensor()), **{"data/1": VALUES.tobytes()})
    raw = bytearray(path.read_bytes())
    first, second = (raw.index(b"PK\x01\x02", raw.index(b"m/data/%d" % i, 400) - 46) for i in (0, 1))
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)
    refused(path, "overlaps what follows it")


def test_checkpoints_from_before_the_zip_format_are_refused_with_what_to_do(tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"rest")
    refused(tmp_path / "m.pt", "before 1.6; load it with PyTorch and save it again")
