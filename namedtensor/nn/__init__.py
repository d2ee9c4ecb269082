"""Layers and functions that models are made of, over named axes.

Classes hold weights and are made by their `load` from a checkpoint; functions hold none.
"""

from namedtensor.nn._activations import (
    activation,
    elu,
    gelu,
    gelu_tanh,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    mish,
    quick_gelu,
    relu,
    relu6,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
)
from namedtensor.nn._attention import attention, causal_mask
from namedtensor.nn._cache import KVCache
from namedtensor.nn._conv import BatchNorm, Conv
from namedtensor.nn._embedding import Embedding
from namedtensor.nn._linear import Linear
from namedtensor.nn._norm import LayerNorm, RMSNorm, layer_norm, rms_norm
from namedtensor.nn._rope import Rope
from namedtensor.nn._sampling import (
    greedy,
    min_p,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
)

__all__ = [
    "BatchNorm",
    "Conv",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "Rope",
    "activation",
    "attention",
    "causal_mask",
    "elu",
    "gelu",
    "gelu_tanh",
    "greedy",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "min_p",
    "mish",
    "quick_gelu",
    "relu",
    "relu6",
    "repetition_penalty",
    "rms_norm",
    "sample",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "temperature",
    "top_k",
    "top_p",
]
