"""The model shapes that benchmarks share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int

    def config(self, dtype: str = "bfloat16") -> dict[str, object]:
        """The same as a checkpoint's config.json."""
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": dtype,
        }


# 1.1 B parameters.
LLAMA_1B = Shape(16, 2048, 8192, 32, 8, 64, 32000, 512)
# Llama 7B's depth; what tracing costs hangs on the number of operations, not on their sizes.
LLAMA_32_LAYERS = Shape(32, 4096, 11008, 32, 32, 128, 32000, 512)
