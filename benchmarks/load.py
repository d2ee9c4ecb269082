"""How fast weights load, against what reading the file costs: `python -m benchmarks.load [--gigabytes 2]`.

Writes a safetensors file of random bf16 weights of a Llama's shapes to a temporary directory, then in turn, several
times over:

- `read()`: Python reads the file into one bytes object, one thread.
- `parallel`: a thread per core reads pieces of it into one buffer made before, the fastest plain read there is.
- `nt.load`: the weights become jax arrays on CPU, ready to use.

Each with the page cache dropped (cold) and with the file in it (warm). Prints each rate's median and
best, and `nt.load` as a share of both others, of median by median and of best by best.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import namedtensor as nt

_PIECE = 8 << 20


def write(path: Path, nbytes: int) -> None:
    """A file of about `nbytes`, with the shapes of Llama's layers: large matrices and small vectors in between."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    while sum(tensor.nbytes for tensor in tensors.values()) < nbytes:
        layer = f"model.layers.{len(tensors) // 5}"
        for name, shape in {
            "self_attn.q_proj": (2048, 2048),
            "mlp.gate_proj": (8192, 2048),
            "mlp.up_proj": (8192, 2048),
            "mlp.down_proj": (2048, 8192),
            "input_layernorm": (2048,),
        }.items():
            values = rng.integers(0, 1 << 14, shape, np.uint16)
            tensors[f"{layer}.{name}.weight"] = values.view(ml_dtypes.bfloat16)
    save_file(tensors, path)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)  # only what is on the disk can be dropped from memory
    os.close(descriptor)


def drop_from_memory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def plain_read(path: Path) -> object:
    return path.read_bytes()


def parallel_read(path: Path) -> object:
    size = path.stat().st_size
    memory = np.empty(size, np.uint8)
    descriptor = os.open(path, os.O_RDONLY)

    def piece(offset: int) -> int:
        return os.preadv(descriptor, [memoryview(memory)[offset : offset + _PIECE]], offset)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert sum(pool.map(piece, range(0, size, _PIECE))) == size
    os.close(descriptor)
    return memory


def load(path: Path) -> object:
    checkpoint = nt.Checkpoint.open(path)
    names = {name: " ".join("ab"[: len(checkpoint.info(name).shape)]) for name in checkpoint.names()}
    return nt.load({name: checkpoint.weight(name, axes) for name, axes in names.items()}, progress=False).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the file")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--directory", help="where to put the file; by default the system's temporary directory")
    arguments = parser.parse_args()
    ways: dict[str, Callable[[Path], object]] = {"read()": plain_read, "parallel": parallel_read, "nt.load": load}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = Path(directory) / "model.safetensors"
        write(path, int(arguments.gigabytes * 1e9))
        size = path.stat().st_size
        print(f"{size / 1e9:.2f} GB of bf16 weights, {os.cpu_count()} cores, {arguments.rounds} rounds", flush=True)
        for state in ("cold", "warm"):
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(arguments.rounds):
                # In turn first, so that none always runs in the wake of another.
                order = deque(ways)
                order.rotate(number)
                for name in order:
                    if state == "cold":
                        drop_from_memory(path)
                    start = time.perf_counter()
                    kept = ways[name](path)
                    rates[name].append(size / (time.perf_counter() - start) / 1e9)
                    del kept
            shown = "   ".join(
                f"{name} {statistics.median(each):.2f} GB/s (best {max(each):.2f})" for name, each in rates.items()
            )
            shares = ", ".join(
                f"{statistics.median(rates['nt.load']) / statistics.median(rates[name]):.0%} of {name} "
                f"(best {max(rates['nt.load']) / max(rates[name]):.0%})"
                for name in ways
                if name != "nt.load"
            )
            print(f"{state}: {shown}   nt.load is {shares}", flush=True)
    assert threading.active_count() == 1, "loading left a thread behind"


if __name__ == "__main__":
    main()
