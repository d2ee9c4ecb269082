"""transformers on PyTorch as a peer: prefill and decode rates of a checkpoint, as one line of JSON.

Run by another interpreter, one that has PyTorch and transformers: `python torch_llama.py DIRECTORY PROMPT STEPS`.
"""

import json
import sys
import time

import torch
from transformers import LlamaForCausalLM


def main() -> None:
    directory, prompt, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    tokens = torch.arange(1, prompt + 1)[None]
    with torch.inference_mode():
        model(tokens[:, :8])
        began = time.perf_counter()
        out = model(tokens, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - began
        cache, times = out.past_key_values, []
        token = out.logits[:, -1:].argmax(-1)
        for _ in range(steps):
            began = time.perf_counter()
            out = model(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
            times.append(time.perf_counter() - began)
    times.sort()
    print(
        json.dumps(
            {"prefill": prompt / prefill, "decode": 1 / times[len(times) // 2], "threads": torch.get_num_threads()}
        )
    )


if __name__ == "__main__":
    main()
