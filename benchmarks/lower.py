"""Time to trace and lower one decode step of a 32-layer Llama: `python -m benchmarks.lower [--rounds 7]`.

In turn, each in a process of its own so that neither finds what the other left in jax's caches:

- `namedtensor`: from the checkpoint's header to StableHLO, layers outlined.
- `plain JAX`: `benchmarks/peers/plain_jax_llama.py`, a Python loop over the layers, as people write it.
- `plain JAX, jitted block`: the same with `jax.jit` around the block, as people in the know write it.

Prints the median of each, their ratio, and the size of the text that comes out.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import weights
from benchmarks.shapes import LLAMA_32_LAYERS as SHAPE

PEERS = ("namedtensor", "plain JAX", "plain JAX, jitted block")


def measure(peer: str, directory: str) -> dict[str, float]:
    """Seconds and characters of one lowering, in this process."""
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import plain_jax_llama as plain

    # Whatever a first use sets up is not what a lowering costs.
    jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).as_text()
    if peer == "namedtensor":
        import namedtensor as nt
        from namedtensor.models.llama.model import program

        ckpt = nt.Checkpoint.open(directory)
        began = time.perf_counter()
        lowered = program(ckpt, context=SHAPE.context).lower("cpu", entry="decode")["decode"]
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "characters": len(lowered.text(locations=False))}
    params = plain.param_shapes(SHAPE, jnp.bfloat16)
    cache = plain.cache_shapes(SHAPE, jnp.bfloat16)
    token, start = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    if peer != "plain JAX":
        plain.block = jax.jit(plain.block, static_argnums=4)
    step = jax.jit(functools.partial(plain.forward, shape=SHAPE), donate_argnums=1)
    began = time.perf_counter()
    text = step.lower(params, cache, token, start)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "characters": len(text.as_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(measure(options.peer, options.directory)))
        return
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as directory:
        weights.write(Path(directory), SHAPE, sparse=True)
        for _ in range(options.rounds):
            for peer in PEERS:
                command = [sys.executable, "-m", "benchmarks.lower", "--peer", peer, "--directory", directory]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[peer].append(json.loads(output.splitlines()[-1]))
    table = Table(title=f"Trace and lower a decode step of {SHAPE.layers} layers, median of {options.rounds}")
    for column in ("", "seconds", "namedtensor / this", "text, kB"):
        table.add_column(column, justify="left" if not column else "right")
    medians = {peer: statistics.median(run["seconds"] for run in runs) for peer, runs in found.items()}
    for peer, runs in found.items():
        ratio = medians["namedtensor"] / medians[peer]
        table.add_row(peer, f"{medians[peer]:.3f}", f"{ratio:.2f}", f"{runs[0]['characters'] / 1000:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
