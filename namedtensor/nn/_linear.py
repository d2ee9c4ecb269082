"""Linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from namedtensor import _axes
from namedtensor._errors import fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint


class Linear(Module):
    """y = W x + b, over named axes.

    `weight` has the axes of `over`, which are contracted with those of the input, and any others, which the output
    gets. `bias` has axes of the output. Several axes on either side are as good as one: attention's output
    projection contracts `"heads hd"`, its query projection gives both.
    """

    weight: Tensor
    bias: Tensor | None = None
    over: str = "d"

    @classmethod
    def load(
        cls, ckpt: Checkpoint, spec: str, over: str, *, bias: bool = False, dtype: Any = None, **sizes: int
    ) -> Self:
        """Declare `weight`, stored as `spec`, and with `bias` also `bias`, stored as what `spec` has beside `over`.

        `Linear.load(ckpt.scope("q_proj"), "(heads hd) d", over="d", hd=64)`. In PyTorch's `nn.Linear` the output
        axes come first. Raises `AxisError` where `over` cuts through a group of `spec`, and what `ckpt.weight` does.
        """
        contracted = _axes.names(over, "Linear")
        kept = []
        for group in _axes.parse(spec).groups:
            inside = [name for name in group if name in contracted]
            if inside and len(inside) != len(group):
                fail(
                    f"Linear: the group ({' '.join(group)}) is contracted in part",
                    asked=f'"{spec}", over="{over}"',
                    fix="an axis of the input and one of the output cannot be stored as one",
                )
            if not inside:
                kept.append(group)
        weight = ckpt.weight("weight", spec, dtype=dtype, **sizes)
        if not bias:
            return cls(weight, None, over)
        stored = " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in kept)
        named = {name: size for name, size in sizes.items() if any(name in group for group in kept)}
        return cls(weight, ckpt.weight("bias", stored, dtype=dtype, **named), over)

    def __call__(self, x: Tensor) -> Tensor:
        """x: the axes of `over` and any others, which pass through. Same dtype as the weight; f32 accumulation."""
        y = x._dot(self.weight, self.over, None, weight=True)
        return y if self.bias is None else y + self.bias
