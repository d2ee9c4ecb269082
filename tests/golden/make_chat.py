"""Write tests/golden/llama/chat/: a Llama checkpoint with a real tokenizer and chat template, and what they give.

    tokenizer.json, tokenizer_config.json   byte-level BPE trained here; the template, in the ChatML style, stands in
                     tokenizer_config.json as in most repositories, and needs trim_blocks and lstrip_blocks
    config.json, generation_config.json     disagree on the eos ids, as Llama 3's and Qwen's do: the latter's hold
    reference.json   `texts`: ids and decoded text with and without special tokens; `conversations`: messages, options,
                     rendered text and ids; `errors`: messages that the template refuses; `answer`: greedy ids from the
                     prompt `answer.ids` until an eos id (included), and their decoded text, with and without specials

Usage: python tests/golden/make_chat.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jinja2
import torch
from make_llama import build, gaps, weights
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).parent / "llama" / "chat"
SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
CORPUS = [
    "The river is wide and slow here, and the boats wait for the tide before they cross it.",
    "A compiler turns a program that people can read into one that a machine can run.",
    "What is the capital of France? The capital of France is Paris.",
    "How many legs do three spiders have? Eight times three is twenty-four.",
    "Named axes make the shape of every tensor part of what the reader sees.",
    "You are a helpful assistant. You answer in one short sentence.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Le cœur a ses raisons que la raison ne connaît point.",
    "The answer is 42, the question was lost; ask again in 7,500,000 years!",
    "def double(x):\n    return 2 * x\n",
    "It's raining, we'll wait; they've gone home and I'm staying.",
]
TEMPLATE = """\
{%- set ns = namespace(system='You are a helpful assistant.') -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set ns.system = messages[0]['content'] | trim -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token + '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' -}}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant, starting with user; got ' + message.role) }}
    {%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content | trim) ~ '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
    {% set role = 'assistant' %}
{{ '<|im_start|>' + role + '\\n' }}
{%- endif %}
"""
CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "  You answer in one short sentence.\n"},
        {"role": "user", "content": "How many legs do three spiders have?"},
    ],
    [
        {"role": "user", "content": "Say it in German: the river is wide."},
        {"role": "assistant", "content": " Der Fluss ist breit. "},
        {"role": "user", "content": "Und über Köln? 日本語 🙂"},
    ],
    [
        {"role": "user", "content": "double(21)"},
        {"role": "assistant", "content": "The answer is 42."},
    ],
]
ERRORS = [
    [{"role": "assistant", "content": "I go first."}],
    [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}],
]
TEXTS = [
    "The river is wide.",
    "  leading and trailing spaces  ",
    "Zwölf Boxkämpfer, naïve cœur, 東京, 🙂👩‍👩‍👧",
    "line one\nline two\n\n\tindented",
    "<|im_start|>user\nspecial tokens inside text<|im_end|>",
    "12345 67,890.12",
    "",
]


# tokenizer_config.json as transformers 4 writes it, which is what the Hub is full of.
TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "added_tokens_decoder": {
        str(index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL)
    },
    "bos_token": "<|begin|>",
    "chat_template": TEMPLATE,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "model_max_length": 256,
    "pad_token": "<|pad|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}
GENERATION_CONFIG = {
    "bos_token_id": 0,
    "do_sample": True,
    "eos_token_id": [1, 3],
    "pad_token_id": 4,
    "temperature": 0.7,
    "top_p": 0.9,
}


def tokenizer() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", 0)]
    )
    return core


def config(vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
    }


@torch.no_grad()
def answer(model: torch.nn.Module, ids: list[int], eos: list[int], limit: int = 200) -> tuple[list[int], float]:
    """Returns the greedy tokens up to and with the first eos id, and the smallest lead of the winner among them."""
    output = model(torch.tensor([ids]), use_cache=True)
    tokens: list[int] = []
    lead = float("inf")
    while len(tokens) < limit:
        logits = output.logits[0, -1].numpy()
        tokens.append(int(logits.argmax()))
        lead = min(lead, float(gaps(logits)))
        if tokens[-1] in eos:
            break
        output = model(torch.tensor([tokens[-1:]]), past_key_values=output.past_key_values, use_cache=True)
    return tokens, lead


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    tokenizer().save(str(FOLDER / "tokenizer.json"))
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    fast = AutoTokenizer.from_pretrained(FOLDER)

    texts = []
    for text in TEXTS:
        ids = fast(text)["input_ids"]
        texts.append(
            {
                "text": text,
                "ids": ids,
                "decoded": fast.decode(ids),
                "decoded_without_special": fast.decode(ids, skip_special_tokens=True),
            }
        )
    conversations = []
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            rendered = fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            ids = fast.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
            assert ids == fast(rendered, add_special_tokens=False)["input_ids"]
            conversations.append(
                {"messages": messages, "add_generation_prompt": prompt, "text": rendered, "ids": list(ids)}
            )
    errors = []
    for messages in ERRORS:
        try:
            fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except jinja2.exceptions.TemplateError as error:
            errors.append({"messages": messages, "message": str(error)})
    assert len(errors) == len(ERRORS)

    settings = config(len(fast))
    prompt = conversations[0]["ids"]
    eos = GENERATION_CONFIG["eos_token_id"]
    model = build(settings, {})
    for seed in range(2000):
        model.load_state_dict(weights(model, torch.bfloat16, seed), strict=False)
        tokens, lead = answer(model, prompt, eos)
        if 20 <= len(tokens) <= 60 and tokens[-1] == 3 and len(set(tokens)) > 15 and lead > 5e-3:
            break
    else:
        raise SystemExit("no seed ends its answer in time")
    model.to(torch.bfloat16).save_pretrained(FOLDER)
    for name, content in (("config.json", settings), ("generation_config.json", GENERATION_CONFIG)):
        (FOLDER / name).write_text(json.dumps(content, indent=2) + "\n")
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager").eval()
    assert answer(model, prompt, eos)[0] == tokens
    reference = {
        "texts": texts,
        "conversations": conversations,
        "errors": errors,
        "answer": {
            "ids": prompt,
            "tokens": tokens,
            "text": fast.decode(tokens, skip_special_tokens=True),
            "text_with_special": fast.decode(tokens),
        },
    }
    (FOLDER / "reference.json").write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n")
    print(f"seed {seed}, vocabulary {len(fast)}, answer of {len(tokens)} tokens: {reference['answer']['text']!r}")
    for conversation in conversations:
        print(conversation["add_generation_prompt"], repr(conversation["text"]))
    print([error["message"] for error in errors])


if __name__ == "__main__":
    main()
