"""Keys and values of the positions so far."""

from __future__ import annotations

from typing import Any, Self, cast

import jax

from namedtensor._errors import fail
from namedtensor._module import Module
from namedtensor._tensor import Tensor, arange, full, spec
from namedtensor.nn._attention import causal_mask


class KVCache(Module):
    """Keys and values of one attention layer, at a fixed capacity.

    k, v: `b kv keys hd`. Place j along `keys` holds position j. Stored so that a decode step reads both as they lie.
    """

    k: Tensor
    v: Tensor

    @classmethod
    def spec(cls, *, b: int, kv: int, keys: int, hd: int, dtype: Any) -> Self:
        """Shapes alone, to declare an entry point's input with."""
        shape = spec("b kv keys hd", dtype, b=b, kv=kv, keys=keys, hd=hd)
        return cls(shape, shape)

    @classmethod
    def zeros(cls, *, b: int, kv: int, keys: int, hd: int, dtype: Any) -> Self:
        """An empty cache. Its two tensors are buffers of their own, fit to be donated."""
        return cls(*(full("b kv keys hd", 0, dtype, b=b, kv=kv, keys=keys, hd=hd) for _ in range(2)))

    @property
    def capacity(self) -> int:
        """Positions that it has room for."""
        return self.k.size("keys")

    def append(self, k: Tensor, v: Tensor, start: Tensor) -> Self:
        """Keys and values of consecutive positions from `start` on written in, over what was there.

        k, v: (b, s, kv, hd).  start: integer, (b) where the rows are at different positions, () where they are not.
        The caller keeps start + s within the capacity: what lies beyond would be moved down, not dropped.
        """
        if k.size("s") > self.capacity:
            fail(
                f"KVCache: {k.size('s')} positions do not fit into a cache of {self.capacity}",
                found={"k": k, "cache": self.k},
            )
        if start.axes and start.count == 1:
            # One place for all: a plain update in place, where places by row would take a scatter.
            start = start.squeeze(" ".join(start.axes))
        filled = self.replace(
            k=self.k.dynamic_update("keys", start, k.rename("s -> keys")),
            v=self.v.dynamic_update("keys", start, v.rename("s -> keys")),
        )
        # Without the barrier XLA:CPU fuses the update into each of its uses, the returned cache and the scores. None
        # of them is in place then, and a decode step copies the whole cache several times.
        return cast(Self, jax.lax.optimization_barrier(filled))

    def visible(self, positions: Tensor, *, window: int | None = None) -> Tensor:
        """True where the query at a position sees the key at a place: (axes of `positions`, keys); see `causal_mask`.

        It also hides what was never written, and padding behind the last position: both are later positions.
        """
        return causal_mask(positions, arange("keys", self.capacity, positions.dtype), window=window)
