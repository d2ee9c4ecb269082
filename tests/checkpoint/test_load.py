"""`nt.load`: a tree of weights becomes the same tree of jax arrays, in the background."""

import os
import threading
import time
from concurrent.futures import CancelledError

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import namedtensor as nt
from namedtensor.checkpoint import Checkpoint, _blob, _load, load
from namedtensor.checkpoint._convert import convert
from namedtensor.checkpoint._formats import PLAIN

RNG = np.random.default_rng(0)
BIG = RNG.standard_normal((1200, 1024)).astype(np.float32)  # several pieces, the last one not full
SMALL = RNG.standard_normal(7).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path):
    # The odd tensor in front leaves the others aligned to nothing.
    save_file({"a_odd": np.arange(3, dtype=np.uint8), "big": BIG, "small": SMALL}, tmp_path / "m.safetensors")
    return Checkpoint.open(tmp_path / "m.safetensors")


@pytest.fixture
def held(monkeypatch):
    """Reads wait until the test lets them go on."""
    go = threading.Event()
    read_into = _blob.LocalFile.read_into

    def wait(self, offset, target):
        assert go.wait(60)
        read_into(self, offset, target)

    monkeypatch.setattr(_blob.LocalFile, "read_into", wait)
    yield go
    go.set()


# -- the tree --------------------------------------------------------------------------------------------------------


def test_the_tree_comes_back_with_arrays_for_weights_and_all_else_as_it_was(checkpoint):
    kept = jnp.arange(2)
    tree = {"w": checkpoint.weight("big", "a b"), "list": [checkpoint.weight("small", "x"), kept, 3], "none": None}
    loaded = load(tree).result()
    assert loaded["w"].axes == ("a", "b")
    assert isinstance(loaded["w"].array, jax.Array)
    np.testing.assert_array_equal(loaded["w"].numpy("a b"), BIG)
    np.testing.assert_array_equal(loaded["list"][0].numpy("x"), SMALL)
    assert loaded["list"][1] is kept
    assert loaded["list"][2] == 3
    assert loaded["none"] is None


def test_a_module_of_weights_becomes_a_module_of_arrays(checkpoint):
    class Layer(nt.Module):
        weight: nt.Tensor
        name: str

    loaded = load(Layer(weight=checkpoint.weight("small", "x"), name="layer")).result()
    assert isinstance(loaded, Layer)
    np.testing.assert_array_equal(loaded.weight.numpy("x"), SMALL)


def test_a_tree_without_weights_is_done_at_once():
    loading = load({"a": 1})
    assert loading.result(timeout=10) == {"a": 1}
    assert loading.progress == (0, 0)


def test_a_group_is_split_and_an_axis_of_one_dropped(tmp_path):
    save_file({"w": BIG.reshape(1, 1200, 1024)}, tmp_path / "m.safetensors")
    weight = Checkpoint.open(tmp_path / "m.safetensors").weight("w", "1 (heads hd) d", hd=8)
    np.testing.assert_array_equal(load(weight).result().numpy("heads hd d"), BIG.reshape(150, 8, 1024))


# -- memory ----------------------------------------------------------------------------------------------------------


def test_jax_holds_the_memory_that_was_read_into_without_another_copy(checkpoint, monkeypatch):
    made = []
    aligned = _load._aligned

    def remember(nbytes):
        made.append(aligned(nbytes))
        return made[-1]

    monkeypatch.setattr(_load, "_aligned", remember)
    array = load(checkpoint.weight("big", "a b")).result().array
    assert array.unsafe_buffer_pointer() == made[0].ctypes.data
    assert array.unsafe_buffer_pointer() % 64 == 0


def test_a_weight_used_twice_is_read_once(checkpoint):
    embedding, head = checkpoint.weight("big", "v d"), checkpoint.weight("big", "v d")
    loading = load({"embedding": embedding, "head": head, "again": embedding})
    loaded = loading.result()
    assert loaded["embedding"].array is loaded["head"].array
    assert loaded["embedding"].array is loaded["again"].array
    assert loading.progress == (BIG.nbytes, BIG.nbytes)


def test_the_same_tensor_in_two_dtypes_is_two_arrays(checkpoint):
    tree = [checkpoint.weight("small", "x"), checkpoint.weight("small", "x", dtype="bfloat16")]
    assert [tensor.dtype for tensor in load(tree).result()] == [np.float32, ml_dtypes.bfloat16]


def test_weights_go_to_the_device_that_was_asked_for(checkpoint):
    device = jax.devices("cpu")[0]
    array = load(checkpoint.weight("small", "x"), device=device).result().array
    assert array.devices() == {device}
    assert array.committed


def test_weights_go_where_the_callers_default_is_and_stay_free_to_move(checkpoint):
    with jax.default_device(jax.devices("cpu")[0]):
        array = load(checkpoint.weight("small", "x")).result().array
    assert not array.committed


def test_64_bit_types_are_kept_where_the_caller_enables_them(tmp_path):
    save_file({"w": np.array([1 << 40])}, tmp_path / "m.safetensors")
    with jax.enable_x64(True):
        loaded = load(Checkpoint.open(tmp_path / "m.safetensors").weight("w", "x")).result()
        assert loaded.dtype == np.int64
        assert loaded.numpy("x").tolist() == [1 << 40]


# -- conversions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["bfloat16", "float16", "float32", "float8_e4m3fn"])
@pytest.mark.parametrize("stored", ["f32", "bf16", "f16", "f8_e5m2", "i32", "bool"])
def test_conversions_give_what_ml_dtypes_gives(stored, wanted):
    values = np.array([0, 1, -1.5, 3.1415926, 1e-8, -65000, 1e5, np.inf, -np.inf], np.float32)
    form = PLAIN[stored]
    if form.name in ("i32", "bool"):
        values = np.array([0, 1, 1, 0, 100], np.float32)
    with np.errstate(over="ignore"):
        raw = values.astype(form.dtype)
    out = np.empty(len(values), np.dtype(wanted))
    convert(raw.view(np.uint8), form, out, values.shape)
    with np.errstate(over="ignore"):
        expected = raw.astype(out.dtype)
    np.testing.assert_array_equal(out.view(np.uint8), expected.view(np.uint8))


def test_rounding_to_bf16_is_to_nearest_even_for_every_pattern():
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    for low in (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (high | low).astype(np.uint32).view(np.float32)
        out = np.empty(len(values), ml_dtypes.bfloat16)
        convert(values.view(np.uint8), PLAIN["f32"], out, values.shape)
        with np.errstate(invalid="ignore"):
            expected = values.astype(ml_dtypes.bfloat16)
        nan = np.isnan(values)
        assert np.isnan(out[nan].astype(np.float32)).all()
        np.testing.assert_array_equal(out[~nan].view(np.uint16), expected[~nan].view(np.uint16))


def test_conversion_of_many_pieces_is_seamless(checkpoint):
    loaded = load(checkpoint.weight("big", "a b", dtype="bfloat16")).result().numpy("a b")
    np.testing.assert_array_equal(loaded, BIG.astype(ml_dtypes.bfloat16))


# -- in the background -----------------------------------------------------------------------------------------------


def test_load_returns_before_anything_is_read(checkpoint, held):
    loading = load(checkpoint.weight("big", "a b"))
    assert not loading.done
    assert loading.progress == (0, BIG.nbytes)
    assert jax.jit(lambda x: x + 1)(1) == 2  # compiling goes on meanwhile
    held.set()
    loading.result(timeout=60)
    assert loading.done
    assert loading.progress == (BIG.nbytes, BIG.nbytes)


def test_a_result_that_is_not_there_in_time_says_how_far_it_got(checkpoint, held):
    loading = load(checkpoint.weight("big", "a b"))
    with pytest.raises(TimeoutError, match=r"0 of 4,915,200 bytes were loaded within 0.01 seconds"):
        loading.result(timeout=0.01)
    held.set()
    np.testing.assert_array_equal(loading.result(timeout=60).numpy("a b"), BIG)


def test_cancelling_ends_in_an_exception_that_says_so(checkpoint, held):
    loading = load(checkpoint.weight("big", "a b"))
    loading.cancel()
    held.set()
    with pytest.raises(CancelledError, match="loading was cancelled after"):
        loading.result(timeout=60)
    assert "cancelled" in repr(loading)


def test_cancelling_what_is_done_changes_nothing(checkpoint):
    loading = load(checkpoint.weight("small", "x"))
    loading.result()
    loading.cancel()
    np.testing.assert_array_equal(loading.result().numpy("x"), SMALL)


def test_no_thread_is_left_behind(checkpoint):
    before = threading.active_count()
    loading = load(checkpoint.weight("big", "a b"))
    loading.result()
    loading._thread.join(10)
    assert threading.active_count() <= before


# -- files that change -------------------------------------------------------------------------------------------------


def change(path, how):
    if how == "cut short":
        os.truncate(path, path.stat().st_size - 5)
    elif how == "removed":
        path.unlink()
    elif how == "replaced":
        other = path.with_suffix(".new")
        other.write_bytes(path.read_bytes())
        other.replace(path)
    else:
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"changed")
        later = time.time_ns() + 10**9
        os.utime(path, ns=(later, later))


@pytest.mark.parametrize("how", ["cut short", "removed", "replaced", "overwritten"])
def test_a_file_that_changed_since_its_header_was_read_is_one_clear_error(checkpoint, how):
    tree = [checkpoint.weight("small", "x"), checkpoint.weight("big", "a b")]
    path = tree[0].array.entry.blob.path
    change(path, how)
    with pytest.raises(nt.CheckpointError, match=r"changed .*after its header was read|no such file") as caught:
        load(tree).result(timeout=60)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_while_it_is_read_is_an_error_and_not_a_crash(checkpoint, held):
    loading = load(checkpoint.weight("big", "a b"))
    change(checkpoint._contents.entries["big"].blob.path, "cut short")
    held.set()
    with pytest.raises(nt.CheckpointError, match=r"changed from .* bytes after its header was read"):
        loading.result(timeout=60)


def test_an_error_is_raised_again_each_time_it_is_asked_for(checkpoint):
    loading = load(checkpoint.weight("big", "a b"))
    loading.result()
    change(checkpoint._contents.entries["big"].blob.path, "removed")
    loading = load(checkpoint.weight("big", "a b"))
    for _ in range(2):
        with pytest.raises(nt.CheckpointError, match="no such file"):
            loading.result(timeout=60)


# -- the progress bar ------------------------------------------------------------------------------------------------


class Terminal:
    """A stderr that says it is a terminal, and keeps what is written to it."""

    def __init__(self, interactive=True):
        self.interactive = interactive
        self.text = ""
        self.drawn = threading.Event()

    def isatty(self):
        return self.interactive

    def write(self, text):
        self.text += text
        if "MB" in self.text:
            self.drawn.set()

    def flush(self):
        pass


def test_a_slow_load_draws_bytes_and_rate_on_a_terminal(checkpoint, held, monkeypatch):
    monkeypatch.setattr("namedtensor.checkpoint._progress._PATIENCE_S", 0.01)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    loading = load(checkpoint.weight("big", "a b"))
    assert terminal.drawn.wait(20)
    held.set()
    loading.result(timeout=60)
    assert "4.9 MB" in terminal.text


@pytest.mark.parametrize(("interactive", "progress"), [(False, True), (True, False)])
def test_nothing_is_drawn_elsewhere_or_when_not_wanted(checkpoint, monkeypatch, interactive, progress):
    monkeypatch.setattr("namedtensor.checkpoint._progress._PATIENCE_S", 0)
    terminal = Terminal(interactive)
    monkeypatch.setattr("sys.stderr", terminal)
    load(checkpoint.weight("big", "a b"), progress=progress).result(timeout=60)
    assert not [thread for thread in threading.enumerate() if thread.name == "nt.load.progress"]
    assert terminal.text == ""
