"""Activation functions.

The ones that need a transcendental function are computed in f32 or wider and rounded once, to the input's dtype.
All take floating types over any axes and keep both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from namedtensor._errors import ModelError, closest, fail
from namedtensor._join import where
from namedtensor._tensor import Tensor


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.maximum(0)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return x.clip(0, 6)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where it is positive, slope · x elsewhere."""
    return where(x > 0, x, x * slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha · (exp(x) - 1) elsewhere (arXiv 1511.07289)."""
    wide = x._wide()
    # The branch not taken must stay finite, or its infinity reaches derivatives.
    return where(wide > 0, wide, alpha * wide.minimum(0).expm1()).cast(x.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return x._wide().sigmoid().cast(x.dtype)


def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return -softplus(-x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x._wide().tanh().cast(x.dtype)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    wide = x._wide()
    return (wide.maximum(0) + (-wide.abs()).exp().log1p()).cast(x.dtype)


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x / (x.abs() + 1)


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x), also called swish (arXiv 1702.03118)."""
    wide = x._wide()
    return (wide * wide.sigmoid()).cast(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """x · Φ(x), with Φ the normal distribution function, by the error function (arXiv 1606.08415)."""
    wide = x._wide()
    return (wide * 0.5 * ((wide * math.sqrt(0.5)).erf() + 1)).cast(x.dtype)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU with its tanh approximation (arXiv 1606.08415, section 2)."""
    wide = x._wide()
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return (wide * 0.5 * (inner.tanh() + 1)).cast(x.dtype)


def quick_gelu(x: Tensor) -> Tensor:
    """GELU with its sigmoid approximation, x · sigmoid(1.702 x) (arXiv 1606.08415, section 2)."""
    wide = x._wide()
    return (wide * (wide * 1.702).sigmoid()).cast(x.dtype)


def mish(x: Tensor) -> Tensor:
    """x · tanh(softplus(x)) (arXiv 1908.08681)."""
    wide = x._wide()
    return (wide * softplus(wide).tanh()).cast(x.dtype)


def hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """x held between `low` and `high`."""
    return x.clip(low, high)


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6 (arXiv 1905.02244)."""
    return relu6(x + 3) / 6


def hardswish(x: Tensor) -> Tensor:
    """x · hardsigmoid(x) (arXiv 1905.02244)."""
    return x * relu6(x + 3) / 6


def _identity(x: Tensor) -> Tensor:
    return x


# Under the names that configuration files use.
_BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": elu,
    "gelu": gelu,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_tanh": gelu_tanh,
    "hardsigmoid": hardsigmoid,
    "hardswish": hardswish,
    "hardtanh": hardtanh,
    "leaky_relu": leaky_relu,
    "linear": _identity,
    "log_sigmoid": log_sigmoid,
    "mish": mish,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "relu6": relu6,
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "softsign": softsign,
    "swish": silu,
    "tanh": tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function that a configuration names: `"silu"`, `"gelu_new"`, ...

    Raises `ModelError` for a name that is not implemented.
    """
    found = _BY_NAME.get(name) if isinstance(name, str) else None
    if found is None:
        guess = closest(name, _BY_NAME) if isinstance(name, str) else None
        fail(
            f"the activation function {name!r} is not implemented",
            found={"implemented": ", ".join(sorted(_BY_NAME))},
            fix=f"did you mean {guess!r}?" if guess else None,
            kind=ModelError,
        )
    return found
