"""llama.cpp as a peer: prefill and decode rates of a Llama checkpoint in bf16, as one line of JSON.

Run by another interpreter, one that has llama-cpp-python and gguf: `python llama_cpp_llama.py DIRECTORY PROMPT
STEPS`. Beside the checkpoint it writes the same weights as `model.gguf` and keeps them. Rows of the query and key
weights stay in their order, which llama.cpp has otherwise: that changes what comes out, not how long it takes.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as api
import numpy as np

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def translated(name: str) -> str:
    """llama.cpp's name of a weight."""
    stem = name.removesuffix(".weight")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.weight"


def convert(directory: Path, path: Path) -> None:
    """Writes `model.safetensors` as GGUF, matrices in bf16 and vectors in f32."""
    config = json.loads((directory / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    data = np.memmap(directory / "model.safetensors", np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    for name, tensor in json.loads(data[8:start].tobytes()).items():
        begin, end = tensor["data_offsets"]
        raw = data[start + begin : start + end]
        if len(tensor["shape"]) == 1:
            wide = np.frombuffer(raw.tobytes(), np.uint16).astype(np.uint32) << 16
            writer.add_tensor(translated(name), wide.view(np.float32))
        else:
            rows = raw.reshape(tensor["shape"][0], -1)
            writer.add_tensor(translated(name), rows, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@api.llama_log_callback
def silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp's messages; the reference must live as long as the library."""


def main() -> None:
    directory, prompt, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path = directory / "model.gguf"
    if not path.exists():
        partial = directory / f"model.gguf.{os.getpid()}"
        convert(directory, partial)
        partial.rename(path)
    api.llama_log_set(silent, None)
    api.llama_backend_init()
    settings = api.llama_model_default_params()
    # Its repacking for AMX crashes with some of these sizes.
    settings.use_extra_bufts = False
    model = api.llama_model_load_from_file(str(path).encode(), settings)
    options = api.llama_context_default_params()
    threads = len(os.sched_getaffinity(0))
    options.n_ctx, options.n_batch, options.n_ubatch = 512, max(prompt, 32), max(prompt, 32)
    options.n_threads = options.n_threads_batch = threads
    context = api.llama_init_from_model(model, options)

    def run(tokens: list[int]) -> float:
        array = (api.llama_token * len(tokens))(*tokens)
        began = time.perf_counter()
        if api.llama_decode(context, api.llama_batch_get_one(array, len(tokens))) != 0:
            raise RuntimeError(f"llama.cpp cannot run {len(tokens)} tokens")
        api.llama_get_logits_ith(context, -1)
        return time.perf_counter() - began

    def prefill() -> float:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        return run(list(range(1, prompt + 1)))

    prefill()
    first = sorted(prefill() for _ in range(3))[1]
    times = sorted(run([7]) for _ in range(steps))
    print(json.dumps({"prefill": prompt / first, "decode": 1 / times[len(times) // 2], "threads": threads}))


if __name__ == "__main__":
    main()
