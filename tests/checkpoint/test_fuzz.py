"""Ten thousand damaged checkpoints: each opens and loads right, or gives `CheckpointError` of one line.

Never another exception, never more memory than the file's size allows. The mutations are drawn from a fixed seed, so a
failure names the file that caused it: run the same test again to have it again.
"""

import contextlib
import io
import json
import random
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import save

import namedtensor as nt

GOLDEN = Path(__file__).parent.parent / "golden" / "checkpoints"
# What opening and loading may take at most beside a multiple of the file: imports, threads, messages.
OVERHEAD = 64 << 10
MULTIPLE = 4
NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63)
WORDS = (
    b'"shape":[', b'"data_offsets":[', b'"F32"', b'"BF16"', b"{}", b"[]", b"-1", b"1e9", b'"__metadata__":{',
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"cos\nsystem\n", b"ctorch\nFloatStorage\n",
    b"\x80\x02", b"R", b"Q", b"b", b"tR", b"h\x00", b"(", b"u.", b"}", b"GGUF", b"\x09\x00\x00\x00",
    b"\x08\x00\x00\x00", b"\xff" * 8, b"../", b"null", b'"weight_map":',
)  # fmt: skip


def safetensors_seeds():
    rng = np.random.default_rng(0)
    yield save({"w": rng.standard_normal((2, 3)).astype(np.float32)})
    yield save(
        {"a": np.zeros((0, 2), np.float16), "b": np.array([True, False]), "c": np.array(5, np.int64)}, {"k": "v"}
    )
    yield save({f"layers.{i}.w": np.full((2, 2), i, ml_dtypes.bfloat16) for i in range(4)})


def torch_seeds():
    for path in sorted(GOLDEN.glob("sharded/*.bin")):
        yield path.read_bytes()
    yield (GOLDEN / "nested.pth").read_bytes()


def gguf_seeds():
    for path in sorted(GOLDEN.glob("*.gguf")):
        yield path.read_bytes()


def index_seeds():
    shards = {"a": "one.safetensors", "b": "two.safetensors"}
    yield json.dumps({"metadata": {"total_size": 16}, "weight_map": shards}).encode()
    yield json.dumps({"weight_map": shards}, indent=2).encode()


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One to four of: bits flipped, bytes replaced, cut, spliced from any seed, repeated, and numbers that lie."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not data:
            break
        # Headers are where the lies are: at the beginning of most formats, at the end of zip files.
        at = rng.choice(
            (rng.randrange(len(data)), rng.randrange(min(len(data), 300)), -rng.randint(1, min(len(data), 300)))
        )
        at %= len(data)
        kind = rng.randrange(9)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 4:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + rng.choice((0, 8, 32))] = other[start : start + rng.randint(1, 200)]
        elif kind == 5:
            data[at:at] = data[at : at + rng.randint(1, 300)]
        elif kind == 6:
            width, number = (
                rng.choice(((2, "<H"), (4, "<I"), (8, "<Q"))),
                rng.choice((*NUMBERS, len(data), len(data) - 1)),
            )
            at -= at % rng.choice((1, width[0]))
            lie = struct.pack(width[1], number % (1 << 8 * width[0]))
            data[at : at + len(lie)] = lie
        elif kind == 7:
            data[at : at + rng.choice((0, 4))] = rng.choice(WORDS)
        else:
            digits = [i for i, byte in enumerate(data[:400]) if 48 <= byte <= 57] or [at]
            data[rng.choice(digits)] = rng.choice(b"0123456789-.e")
    return bytes(data)


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of the file that can be loaded."""
    checkpoint = nt.Checkpoint.open(path)
    tree = {}
    for name in checkpoint.names():
        info = checkpoint.info(name)
        if info.dtype is not None:
            axes = " ".join(f"a{i}" for i in range(len(info.shape)))
            tree[name] = checkpoint.weight(name, axes).array
    loaded = jax.tree.map(np.asarray, nt.load(tree, progress=False).result(timeout=60))
    for name, array in loaded.items():
        assert array.shape == checkpoint.info(name).shape
    return loaded


def agrees_with_the_reference(data: bytes, loaded: dict[str, np.ndarray]) -> None:
    """What is accepted is accepted by the safetensors package too, with the same values."""
    reference = dict(safetensors.deserialize(data))
    assert reference.keys() == loaded.keys()
    for name, array in loaded.items():
        assert reference[name]["shape"] == list(array.shape)
        # Not those that change on the way into jax: 64-bit numbers, and bytes that are no bools.
        if reference[name]["dtype"] in ("F32", "F16", "BF16", "I32", "U8"):
            assert bytes(reference[name]["data"]) == array.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "count", "name"),
    [
        pytest.param(safetensors_seeds, 4000, "m.safetensors", id="safetensors"),
        pytest.param(torch_seeds, 3000, "m.pt", id="torch"),
        pytest.param(gguf_seeds, 2500, "m.gguf", id="gguf"),
        pytest.param(index_seeds, 500, "model.safetensors.index.json", id="index"),
    ],
)
def test_a_damaged_file_loads_right_or_is_refused_in_one_line(tmp_path, seeds, count, name):
    seeds = list(seeds())
    rng = random.Random(20)
    path = tmp_path / name
    for shard, tensor in (("one", "a"), ("two", "b")):
        (tmp_path / f"{shard}.safetensors").write_bytes(save({tensor: np.ones(2, np.float32)}))
    for seed in seeds:  # what is refused below is refused for the damage
        path.write_bytes(seed)
        assert read(path)
    outcomes = {"loaded": 0, "refused": 0}
    for number in range(count):
        data = mutate(rng, seeds)
        path.write_bytes(data)
        measured = number % 10 == 0
        if measured:
            tracemalloc.start()
        try:
            with warnings.catch_warnings(action="error"):
                loaded = read(path)
        except nt.CheckpointError as error:
            outcomes["refused"] += 1
            # The file itself, or the shard that an index names.
            assert str(error).startswith(str(tmp_path)), f"file {number}"
            assert str(error).isprintable(), f"file {number}"
        except Exception as error:
            raise AssertionError(f"file {number} is not refused cleanly: {data!r}") from error
        else:
            outcomes["loaded"] += 1
            if name == "m.safetensors":
                agrees_with_the_reference(data, loaded)
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < OVERHEAD + MULTIPLE * len(data), f"file {number} of {len(data)} bytes took {peak}"
    # Both must be common, or the mutations are too weak or too wild to prove anything.
    assert min(outcomes.values()) > count // 50, outcomes


# -- headers that are nothing but a burden -----------------------------------------------------------------------------

SIZE = 64 << 10


def framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def archived(pickle: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02" + pickle + b".")
    return buffer.getvalue()


def gguf(pairs: list[bytes], tensors: list[bytes]) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join((*pairs, *tensors))
    return header + bytes(-len(header) % 32)


def named(number: int) -> bytes:
    name = b"%x" % number
    return struct.pack("<Q", len(name)) + name


EMPTY = b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
BATCH = 30_000  # of what a pickle may hold at once
BURDENS = {
    "tensors of nothing": lambda: framed(b"{" + b",".join(EMPTY % i for i in range(SIZE // 50)) + b"}"),
    "texts of nothing": lambda: framed(
        b'{"__metadata__":{' + b",".join(b'"%x":""' % i for i in range(SIZE // 10)) + b"}}"
    ),
    "dicts in a pickle": lambda: archived(b"]" + (b"(" + b"}" * BATCH + b"e") * (SIZE // BATCH)),
    "tuples in tuples": lambda: archived(b"](" + (b")" + b"\x85" * 9) * (SIZE // 10) + b"e"),
    "numbers in a pickle": lambda: archived(b"](" + b"J\xff\xff\xff\x7f" * (SIZE // 5) + b"e"),
    "a memo of one value": lambda: archived(b"]" + b"\x94" * SIZE),
    "metadata of one byte": lambda: gguf([named(i) + struct.pack("<IB", 0, 1) for i in range(SIZE // 17)], []),
    "arrays of one byte": lambda: gguf([named(i) + struct.pack("<IIQB", 9, 0, 1, 1) for i in range(SIZE // 29)], []),
    "GGUF tensors of nothing": lambda: gguf(
        [], [named(i) + struct.pack("<IQIQ", 1, 0, 0, 0) for i in range(SIZE // 36)]
    ),
}


@pytest.mark.parametrize("burden", BURDENS)
def test_a_header_made_to_fill_memory_takes_no_more_than_its_size_allows(tmp_path, burden):
    data = BURDENS[burden]()
    path = tmp_path / "m.bin"
    path.write_bytes(data)
    tracemalloc.start()
    with contextlib.suppress(nt.CheckpointError):
        nt.Checkpoint.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Python's objects are larger than what describes them, by a constant.
    assert peak < 24 * len(data)
