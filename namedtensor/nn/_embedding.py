"""Embedding: a table of vectors, looked up by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from namedtensor import _axes
from namedtensor._errors import fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint


class Embedding(Module):
    """One vector for each id.

    `weight` has the axis `axis` (the ids) and any others, which the result gets.
    """

    weight: Tensor
    axis: str = "vocab"

    @classmethod
    def load(cls, ckpt: Checkpoint, spec: str = "vocab d", *, dtype: Any = None, **sizes: int) -> Self:
        """Declare `weight`, stored as `spec`, whose first axis holds the ids."""
        layout = _axes.parse(spec)
        if len(layout.groups) < 2 or len(layout.groups[0]) != 1:
            fail(
                "Embedding: the axis of the ids comes first, alone, and the vector's axes follow",
                asked=f'"{spec}"',
                fix='for example "vocab d"',
            )
        return cls(ckpt.weight("weight", spec, dtype=dtype, **sizes), layout.axes[0])

    def __call__(self, ids: Tensor) -> Tensor:
        """ids: integers over any axes. Returns those axes and the vector's, in the table's dtype."""
        return self.weight.gather(self.axis, ids)

    def logits(self, x: Tensor, *, dtype: Any = None) -> Tensor:
        """Scalar product of x with every vector of the table: output logits with tied embeddings (arXiv 1608.05859).

        x: the vector's axes and any others. Returns those others and the axis of ids, in x's dtype or `dtype`.
        """
        return x.dot(self.weight, " ".join(name for name in self.weight.axes if name != self.axis), dtype=dtype)
