"""Convolution layers over named spatial axes, and batch normalisation as it is at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from namedtensor import _axes
from namedtensor._conv import Sides
from namedtensor._errors import ModelError, fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint


class Conv(Module):
    """Convolution along the axes of `window`, from channels `c` to channels `c`; any other axis is a batch axis.

    `weight` is (out, c, kh, kw), the kernel's axis along `h` being `kh`; or (c, kh, kw), a depthwise convolution, in
    which each channel has a kernel of its own. `bias`: (out,), or (c,) where that is depthwise. `stride`, `padding`,
    `dilation` and `groups` as in `Tensor.conv`; a tuple holds one value for each axis of the window.
    """

    weight: Tensor
    bias: Tensor | None = None
    window: str = "h w"
    stride: int | tuple[int, ...] = 1
    padding: Sides | tuple[Sides, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1

    @classmethod
    def load(
        cls,
        ckpt: Checkpoint,
        spec: str = "out c kh kw",
        *,
        window: str = "h w",
        stride: int | tuple[int, ...] = 1,
        padding: Sides | tuple[Sides, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = False,
        dtype: Any = None,
        **sizes: int,
    ) -> Self:
        """Declare `weight`, stored as `spec`, and with `bias` also `bias`.

        PyTorch stores a depthwise kernel as `"c 1 kh kw"`, the kernel of its `nn.Conv1d` as `"out c kt"`
        (`window="t"`).
        """
        weight = ckpt.weight("weight", spec, dtype=dtype, **sizes)
        added = ckpt.weight("bias", "out" if "out" in weight.axes else "c", dtype=dtype) if bias else None
        return cls(weight, added, window, stride, padding, dilation, groups)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (c, the axes of `window`, any others), in the weight's dtype. Same axes and dtype, other sizes."""
        depthwise = "out" not in self.weight.axes
        y = x.conv(
            self.weight,
            "" if depthwise else "c",
            window={name: f"k{name}" for name in _axes.names(self.window, "Conv")},
            stride=self._by_axis("stride"),
            padding=self._by_axis("padding"),
            dilation=self._by_axis("dilation"),
            groups=self.groups,
        )
        if self.bias is not None:
            y = y + self.bias
        return y if depthwise else y.rename("out -> c")

    def _by_axis(self, setting: str) -> Any:
        value, window = getattr(self, setting), _axes.names(self.window, "Conv")
        if not isinstance(value, tuple):
            return value
        if len(value) != len(window):
            fail(
                f"Conv: {setting} holds {len(value)} values for {len(window)} axes",
                found={"window": self.window, setting: repr(value)},
                fix="give one for each axis of the window, or one for all",
                kind=ModelError,
            )
        return dict(zip(window, value, strict=True))


class BatchNorm(Module):
    """Batch normalisation with the statistics that training left behind: a scale and a shift for each channel.

    (x - mean) / sqrt(var + eps) * weight + bias, every field of axes (c,).
    [Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167)
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    eps: float = 1e-5

    @classmethod
    def load(cls, ckpt: Checkpoint, *, eps: float = 1e-5, dtype: Any = None) -> Self:
        """Declare `weight`, `bias`, `running_mean` and `running_var`, stored as `c`."""
        return cls(
            weight=ckpt.weight("weight", "c", dtype=dtype),
            bias=ckpt.weight("bias", "c", dtype=dtype),
            mean=ckpt.weight("running_mean", "c", dtype=dtype),
            var=ckpt.weight("running_var", "c", dtype=dtype),
            eps=eps,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """x: (c, and any other axes). Same axes and dtype; computed in f32 or wider and rounded once."""
        weight, bias, mean, var = (part._wide() for part in (self.weight, self.bias, self.mean, self.var))
        # One product and one sum for each element, where the formula as it stands has two of both.
        scale = weight * (var + self.eps).rsqrt()
        return (x._wide() * scale + (bias - mean * scale)).cast(x.dtype)
