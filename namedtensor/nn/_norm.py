"""Layer normalisation and its root-mean-square form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from namedtensor._module import Module
from namedtensor._tensor import Tensor

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint


def layer_norm(
    x: Tensor, axes: str, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) · weight + bias, mean and population variance over `axes` (arXiv 1607.06450).

    weight, bias: axes of x. Everything is computed in f32 or wider and rounded once, to x's dtype.
    """
    wide = x._wide()
    centred = wide - wide.mean(axes)
    y = centred * _inverse_root(centred.square().mean(axes) + eps)
    if weight is not None:
        y = y * weight.cast(y.dtype)
    if bias is not None:
        y = y + bias.cast(y.dtype)
    return y.cast(x.dtype)


def rms_norm(x: Tensor, axes: str, weight: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight, mean over `axes` (arXiv 1910.07467).

    weight: axes of x. The quotient is computed in f32 or wider and rounded to x's dtype before the weight is
    applied, as Llama and its relatives do.
    """
    wide = x._wide()
    y = (wide * _inverse_root(wide.square().mean(axes) + eps)).cast(x.dtype)
    return y if weight is None else y * weight


def _inverse_root(x: Tensor) -> Tensor:
    """1 / sqrt(x), alike on every processor.

    The last bit of XLA's `rsqrt` depends on the processor that it compiles for. Roots and quotients are exact
    everywhere, but XLA takes 1 / sqrt(x) for `rsqrt`.
    """
    return x.sqrt() / x


class LayerNorm(Module):
    """`layer_norm` over the axes of its weight."""

    weight: Tensor
    bias: Tensor | None = None
    eps: float = 1e-5

    @classmethod
    def load(
        cls, ckpt: Checkpoint, spec: str = "d", *, eps: float = 1e-5, bias: bool = True, dtype: Any = None, **sizes: int
    ) -> Self:
        """Declare `weight` and, with `bias`, `bias`, both stored as `spec`."""
        weight = ckpt.weight("weight", spec, dtype=dtype, **sizes)
        return cls(weight, ckpt.weight("bias", spec, dtype=dtype, **sizes) if bias else None, eps)

    def __call__(self, x: Tensor) -> Tensor:
        """x: the weight's axes and any others. Same axes and dtype."""
        return layer_norm(x, " ".join(self.weight.axes), self.weight, self.bias, eps=self.eps)


class RMSNorm(Module):
    """`rms_norm` over the axes of its weight."""

    weight: Tensor
    eps: float = 1e-6

    @classmethod
    def load(cls, ckpt: Checkpoint, spec: str = "d", *, eps: float = 1e-6, dtype: Any = None, **sizes: int) -> Self:
        """Declare `weight`, stored as `spec`."""
        return cls(ckpt.weight("weight", spec, dtype=dtype, **sizes), eps)

    def __call__(self, x: Tensor) -> Tensor:
        """x: the weight's axes and any others. Same axes and dtype."""
        return rms_norm(x, " ".join(self.weight.axes), self.weight, eps=self.eps)
