"""Write the checkpoints and reference values of tests/golden/bert/ with transformers.

    NAME/config.json, model.safetensors   a small random BertModel, f32; old-names has the parameter names of
                         bert-base-uncased (prefix `bert.`, LayerNorm.gamma and LayerNorm.beta)
    NAME/reference.npz   ids, mask, token_types (4, 12) int32, the shorter rows padded;
                         embedding, layers.N, last_hidden_state (4, 12, d) and pooler_output (4, d) float32, where
                         what stands at padded positions means nothing
    minilm.json          with a directory as argument: sentences and their ids from all-MiniLM-L6-v2
    minilm.npz           embeddings (12, 384) float32, mean pooled over the mask and L2 normalised; similarity (12, 12),
                         their cosines; the weights themselves are not stored

Usage: python tests/golden/make_bert.py [DIRECTORY OF all-MiniLM-L6-v2]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

HERE = Path(__file__).parent / "bert"
LENGTHS = [12, 7, 1, 10]
CASES: dict[str, dict[str, Any]] = {
    "gelu": {
        "vocab_size": 120,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "hidden_act": "gelu",
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    },
    "gelu-new-three-types": {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 80,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 16,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-5,
    },
    "relu-old-names": {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "intermediate_size": 48,
        "hidden_act": "relu",
        "max_position_embeddings": 12,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-3,
    },
}
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A fast, dark-coloured fox leaps above a sleepy hound.",
    "How do I reset my password?",
    "I forgot my login credentials and need to get back into my account.",
    "The stock market fell sharply on Monday after weak earnings.",
    "Hello",
    "",
    "Café crème, naïve façade — “quoted” text… and 50% off!",
    "東京は日本の首都です。 Москва — столица России. 🙂",
    "def softmax(x): return exp(x) / exp(x).sum()",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich " * 3,
    "Rivers carve valleys, valleys gather towns, towns build bridges, and bridges carry roads over the rivers. " * 15,
]


def parameter(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
    return torch.from_numpy(seeded.normal(name, shape, std=0.2, mean=mean))


def inputs(config: BertConfig) -> dict[str, np.ndarray]:
    length = max(LENGTHS)
    random = seeded.state("bert inputs")
    mask = (np.arange(length) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = random.randint(1, config.vocab_size, mask.shape).astype(np.int32) * mask
    types = np.sort(random.randint(0, config.type_vocab_size, mask.shape), axis=1).astype(np.int32) * mask
    return {"ids": ids, "mask": mask, "token_types": types}


def rename(file: Path) -> None:
    """Gives the weights the names that bert-base-uncased and its contemporaries have."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for key, value in load_file(file).items():
        for new, before in old.items():
            key = key.replace(new, before)
        tensors[f"bert.{key}"] = value
    save_file(tensors, file, metadata={"format": "pt"})


def write(name: str, settings: dict[str, Any]) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = BertModel(BertConfig(**settings))
    model.load_state_dict(
        {key: parameter(key, tuple(value.shape)) for key, value in model.named_parameters()}, strict=False
    )
    model.save_pretrained(folder)
    if name.endswith("old-names"):
        rename(folder / "model.safetensors")
    written = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "pad_token_id": 0,
        "torch_dtype": "float32",
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")

    model = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for key, value in model.named_parameters():
        assert torch.equal(value, parameter(key, tuple(value.shape))), f"{name}: {key} was not read back"
    arrays = inputs(model.config)
    with torch.no_grad():
        output = model(
            input_ids=torch.from_numpy(arrays["ids"]).long(),
            attention_mask=torch.from_numpy(arrays["mask"]).long(),
            token_type_ids=torch.from_numpy(arrays["token_types"]).long(),
            output_hidden_states=True,
        )
    embedding, *layers = (state.numpy() for state in output.hidden_states)
    np.testing.assert_array_equal(layers[-1], output.last_hidden_state.numpy())
    np.savez_compressed(
        folder / "reference.npz",
        **arrays,
        embedding=embedding,
        **{f"layers.{index}": layer for index, layer in enumerate(layers)},
        last_hidden_state=output.last_hidden_state.numpy(),
        pooler_output=output.pooler_output.numpy(),
    )
    print(name, sum(file.stat().st_size for file in folder.iterdir()) // 1000, "kB, std", float(layers[-1].std()))


def write_minilm(directory: str) -> None:
    """As sentence-transformers computes it, one sentence at a time.

    sentence_bert_config.json says 256 tokens; the truncation and padding to 128 in tokenizer.json are not used.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = BertModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    embeddings, ids = [], []
    for sentence in SENTENCES:
        encoded = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            states = model(**encoded).last_hidden_state
        weights = encoded["attention_mask"][..., None].float()
        pooled = (states * weights).sum(1) / weights.sum(1)
        embeddings.append(torch.nn.functional.normalize(pooled, dim=-1)[0].numpy())
        ids.append(encoded["input_ids"][0].tolist())
    stacked = np.stack(embeddings)
    content = {
        "max_length": 256,
        "sentences": [{"text": text, "ids": tokens} for text, tokens in zip(SENTENCES, ids, strict=True)],
    }
    (HERE / "minilm.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")
    np.savez_compressed(HERE / "minilm.npz", embeddings=stacked, similarity=stacked @ stacked.T)
    print("minilm: tokens", [len(tokens) for tokens in ids])
    print(np.round(stacked @ stacked.T, 2))


def main() -> None:
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name, settings in CASES.items():
        write(name, settings)
    for directory in sys.argv[1:2]:
        write_minilm(directory)


if __name__ == "__main__":
    main()
