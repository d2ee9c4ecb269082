"""Write tests/golden/shakespeare.json: what transformers writes with the weights of models/shakespeare.

For each prompt its `ids`, the greedy `answer` (ids) computed in float32 from the stored bfloat16 weights, its `text`,
and `gap`: how much the best logit led the second best where that was closest.

Usage: python tests/golden/make_shakespeare.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GOLDEN = Path(__file__).resolve().parent
CHECKPOINT = GOLDEN.parent.parent / "models" / "shakespeare" / "checkpoint"
PROMPTS = ("ROMEO.\n", "To be, or not to be", "[Enter the KING and his train.]\n\nKING.\n")
TOKENS = 120


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32, attn_implementation="eager").eval()
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            output = model.generate(
                ids,
                max_new_tokens=TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        answer = output.sequences[0, ids.shape[1] :].tolist()
        best = torch.cat(output.logits).topk(2).values
        found.append(
            {
                "prompt": prompt,
                "ids": ids[0].tolist(),
                "answer": answer,
                "text": tokenizer.decode(answer),
                "gap": float((best[:, 0] - best[:, 1]).min()),
            }
        )
    (GOLDEN / "shakespeare.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
