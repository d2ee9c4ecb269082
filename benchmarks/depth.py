"""How a Llama's program grows with its depth: `python -m benchmarks.depth [--layers 2,8,32]`.

For each depth, of a narrow Llama's decode step: the text of the lowered program, and the time to trace, lower and
compile it for CPU, next to plain JAX's (`benchmarks/peers/plain_jax_llama.py`). One process each, the disk cache off.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import weights
from benchmarks.shapes import Shape

NARROW = Shape(2, 256, 1024, 8, 4, 32, 1024, 256)
PEERS = ("namedtensor", "plain JAX")


def measure(peer: str, directory: str, shape: Shape) -> dict[str, float]:
    """Seconds and characters of one program, in this process."""
    import jax
    import jax.numpy as jnp

    jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile()
    if peer == "namedtensor":
        import namedtensor as nt
        from namedtensor.models.llama.model import program

        p = program(nt.Checkpoint.open(directory), context=shape.context)
        began = time.perf_counter()
        stages = p.lower("cpu", entry="decode")["decode"].stages
    else:
        from benchmarks.peers import plain_jax_llama as plain

        token, start = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
        step = jax.jit(functools.partial(plain.forward, shape=shape), donate_argnums=1)
        params, cache = (f(shape, jnp.bfloat16) for f in (plain.param_shapes, plain.cache_shapes))
        began = time.perf_counter()
        stages = step.lower(params, cache, token, start)
    lowered = time.perf_counter()
    stages.compile()
    compiled = time.perf_counter()
    return {"lower": lowered - began, "compile": compiled - lowered, "characters": len(stages.as_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="2,8,32", help="depths, separated by commas")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    depths = [int(depth) for depth in options.layers.split(",")]
    if options.peer:
        print(json.dumps(measure(options.peer, options.directory, dataclasses.replace(NARROW, layers=depths[0]))))
        return
    table = Table(title="A decode step by depth")
    for column in ("layers", "", "text, kB", "trace and lower, s", "compile, s"):
        table.add_column(column, justify="left" if not column else "right")
    environment = dict(os.environ, NAMEDTENSOR_CACHE="off")
    for depth in depths:
        with tempfile.TemporaryDirectory() as directory:
            weights.write(Path(directory), dataclasses.replace(NARROW, layers=depth), sparse=True)
            for peer in PEERS:
                command = [sys.executable, "-m", "benchmarks.depth", "--peer", peer, "--directory", directory]
                command += ["--layers", str(depth)]
                output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
                found = json.loads(output.splitlines()[-1])
                text, lower, compile_ = found["characters"] / 1000, found["lower"], found["compile"]
                table.add_row(str(depth), peer, f"{text:.0f}", f"{lower:.2f}", f"{compile_:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
