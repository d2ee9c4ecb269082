"""Llama on CPU, 1.1 B parameters in bf16: `python -m benchmarks.decode [--torch PYTHON] [--rounds 3]`.

Decode rate after a prompt of 128 tokens, and prefill rate of that prompt, each peer in a process of its own, all of
them in turn and several times over, on the same random weights:

- `namedtensor`: its own program, as `namedtensor run llama` runs it.
- `plain JAX`: `benchmarks/peers/plain_jax_llama.py`.
- `PyTorch`: transformers' LlamaForCausalLM, run by the interpreter given with `--torch`; left out without one.

Prints medians and ratios, and the rate at which a decode step reads weights as a share of what the memory gives, which
is measured in the same process.
"""

import argparse
import ctypes
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import weights
from benchmarks.shapes import LLAMA_1B as SHAPE

PROMPT = 128


def median_seconds(step: Callable[[int], Any], steps: int) -> float:
    """Median time of one step, which returns what must be ready before the next begins."""
    times = []
    for i in range(steps):
        began = time.perf_counter()
        step(i)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def read_rate(nbytes: int) -> float:
    """Bytes a second at which all threads together read memory and do nothing else, the best of five."""
    from namedtensor import _kernels

    library = _kernels.library()
    if library is None:
        return float("nan")
    library.nt_read_bandwidth.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.nt_read_bandwidth.restype = ctypes.c_uint64
    buffer = np.ones(nbytes, np.uint8)

    def read(_: int) -> None:
        library.nt_read_bandwidth(buffer.ctypes.data, buffer.nbytes)

    return nbytes / min(median_seconds(read, 1) for _ in range(5))


def namedtensor(directory: str, steps: int) -> dict[str, float]:
    import jax

    import namedtensor as nt
    from namedtensor.models.llama.model import program

    p = program(nt.Checkpoint.open(directory), context=SHAPE.context)
    pieces = max(size for size in p.entries["prefill"].buckets["s"] if size <= PROMPT)
    session = p.start(only=["decode", f"prefill.s{pieces}"])
    state: dict[str, Any] = {
        "cache": jax.tree.map(
            lambda t: nt.zeros(" ".join(t.axes), t.dtype, **t.sizes),
            p.entries["decode"].inputs["cache"],
            is_leaf=lambda x: isinstance(x, nt.Tensor),
        )
    }

    def row(value: int) -> nt.Tensor:
        return nt.wrap(np.array([value], np.int32), "b")

    tokens = nt.wrap(np.arange(1, pieces + 1, dtype=np.int32)[None], "b s")

    def prefill(_: int) -> None:
        for start in range(0, PROMPT, pieces):
            state.update(
                session.call("prefill", tokens=tokens, start=row(start), length=row(pieces), cache=state["cache"])
            )
        state["logits"].array.block_until_ready()

    def decode(i: int) -> None:
        token = int(np.argmax(state["logits"].numpy("b vocab"))) if i == 0 else 7
        state.update(session.call("decode", token=row(token), position=row(PROMPT + i), cache=state["cache"]))
        state["logits"].array.block_until_ready()

    prefill(0)
    times = {"prefill": median_seconds(prefill, 3), "decode": median_seconds(decode, steps)}
    cost = p.lower("cpu", entry="decode")["decode"].cost()
    rate = cost.weight_bytes / times["decode"]
    return {"prefill": PROMPT / times["prefill"], "decode": 1 / times["decode"], "share": rate / read_rate(1 << 28)}


def plain_jax(directory: str, steps: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    import namedtensor as nt
    from benchmarks.peers import plain_jax_llama as plain

    ckpt = nt.Checkpoint.open(directory)
    names = {name: ckpt.weight(name, "a b" if len(shape) == 2 else "a") for name, shape in weights.names(SHAPE)}
    loaded = {name: tensor.array for name, tensor in nt.load(names).result().items()}
    parts = {
        "attention_norm": "input_layernorm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    params = {
        "embedding": loaded["model.embed_tokens.weight"],
        "layers": [
            {ours: loaded[f"model.layers.{i}.{theirs}.weight"] for ours, theirs in parts.items()}
            for i in range(SHAPE.layers)
        ],
        "norm": loaded["model.norm.weight"],
        "output": loaded["lm_head.weight"],
    }
    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), plain.cache_shapes(SHAPE, jnp.bfloat16))
    step = jax.jit(functools.partial(plain.forward, shape=SHAPE), donate_argnums=1)
    state = {"cache": cache}

    def run(tokens: Any, start: int) -> None:
        logits, state["cache"] = step(params, state["cache"], tokens, jnp.int32(start))
        logits.block_until_ready()

    prompt = jnp.arange(1, PROMPT + 1)[None]
    run(prompt, 0)
    prefill = median_seconds(lambda _: run(prompt, 0), 3)
    run(jnp.array([[7]]), PROMPT)
    decode = median_seconds(lambda i: run(jnp.array([[7]]), PROMPT + i), max(3, steps // 8))
    return {"prefill": PROMPT / prefill, "decode": 1 / decode}


PEERS = {"namedtensor": namedtensor, "plain JAX": plain_jax}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="an interpreter that has PyTorch and transformers")
    parser.add_argument("--weights", type=Path, help="a directory to keep the weights in, 2.2 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(PEERS[options.peer](str(options.weights), options.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.weights or Path(temporary)
        if not (directory / "model.safetensors").exists():
            weights.write(directory, SHAPE)
        commands = {
            peer: [sys.executable, "-m", "benchmarks.decode", "--peer", peer, "--weights", str(directory)]
            for peer in PEERS
        }
        if options.torch:
            script = str(Path(__file__).parent / "peers" / "torch_llama.py")
            commands["PyTorch"] = [options.torch, script, str(directory), str(PROMPT), str(options.steps)]
        found: dict[str, list[dict[str, float]]] = {peer: [] for peer in commands}
        for _ in range(options.rounds):
            for peer, command in commands.items():
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[peer].append(json.loads(output.splitlines()[-1]))
    report(found, options.rounds)


def report(found: dict[str, list[dict[str, float]]], rounds: int) -> None:
    medians = {
        peer: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for peer, runs in found.items()
    }
    ours = medians["namedtensor"]
    table = Table(title=f"Llama, 1.1 B parameters, bf16, CPU: tokens a second, median of {rounds} rounds")
    for column in ("", "decode", "namedtensor / this", "prefill of 128", "namedtensor / this"):
        table.add_column(column, justify="left" if not column else "right")
    for peer, rates in medians.items():
        cells = [f"{rates[key]:.2f}" for key in ("decode", "prefill")]
        ratios = [f"{ours[key] / rates[key]:.2f}" for key in ("decode", "prefill")]
        table.add_row(peer, cells[0], ratios[0], cells[1], ratios[1])
    console = Console()
    console.print(table)
    console.print(f"A decode step reads weights at {ours['share']:.0%} of the rate at which the machine reads memory.")


if __name__ == "__main__":
    main()
