"""Names and shapes: rename, split, merge, order, broadcast, pad."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from namedtensor import _axes
from namedtensor._base import Base, Scalar
from namedtensor._elementwise import literal
from namedtensor._errors import did_you_mean, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor


class Shape(Base):
    """What changes names and shapes, and no value."""

    __slots__ = ()

    def rename(self, spec: str) -> Tensor:
        """Other names for some axes, pairwise: `rename("s -> keys")`, `rename("s d -> keys hd")`."""
        old, new = _axes.arrow(spec, "rename")
        if len(old) != len(new):
            fail(f"rename: {len(old)} names on the left, {len(new)} on the right", asked=f'"{spec}"')
        for name in old:
            self._position(name, "rename")
        table = dict(zip(old, new, strict=True))
        renamed = tuple(table.get(name, name) for name in self._axes)
        for name in new:
            if renamed.count(name) > 1:
                fail(
                    f"rename: the tensor would have two axes {name!r}",
                    asked=f'"{spec}"',
                    found={"tensor": self},
                    fix="pick a name that it does not have; the diagonal of two axes is not a renaming",
                )
        return self._make(self._array, renamed)

    def split(self, axis: str, into: str, /, **sizes: int) -> Tensor:
        """One axis as several, the first varying slowest: `split("heads", "kv group", kv=8)`.

        All sizes but one must be given; the last is told from the axis.
        """
        position = self._position(axis, "split")
        parts = _axes.names(into, "split")
        taken = [name for name in parts if name in self._axes and name != axis]
        if taken:
            fail(f"split: the tensor already has an axis {taken[0]!r}", found={"tensor": self}, fix="rename it first")
        new = self._parts(axis, parts, sizes)
        shape = (*self._array.shape[:position], *new, *self._array.shape[position + 1 :])
        axes = (*self._axes[:position], *parts, *self._axes[position + 1 :])
        return self._make(jnp.reshape(self._values(), shape), axes)

    def _parts(self, axis: str, parts: tuple[str, ...], given: dict[str, int]) -> tuple[int, ...]:
        """Sizes of the parts of a split."""
        size = self.size(axis)
        asked = ", ".join([f'x.split("{axis}", "{" ".join(parts)}"', *(f"{k}={v}" for k, v in given.items())]) + ")"
        found = {"tensor": self}
        for name in given:
            if name not in parts:
                fix = did_you_mean(name, parts)
                fail(f"split: a size is given for {name!r}, which is not a part", asked=asked, found=found, fix=fix)
        known = {name: _axes.size("split", name, value) for name, value in given.items()}
        free = [name for name in parts if name not in known]
        product = math.prod(known.values())
        if len(free) > 1:
            fail(
                f"split: the sizes of {' and '.join(map(repr, free))} cannot both be told from {axis!r}",
                asked=asked,
                found=found,
                fix=f"give all but one: {free[0]}=...",
            )
        if (product == 0 or size % product) if free else product != size:
            shown = " and ".join(f"{k}={v}" for k, v in known.items())
            fail(
                f"split: {axis!r} has size {size}, which {shown} "
                + ("does not divide" if free and len(known) == 1 else "do not divide" if free else "do not make")
                if known
                else f"split: {axis!r} has size {size}, which no axis at all does not make",
                asked=asked,
                found=found,
            )
        return tuple(known[name] if name in known else size // product for name in parts)

    def merge(self, spec: str) -> Tensor:
        """Several axes as one, the first named varying slowest: `merge("kv group -> heads")`."""
        old, new = _axes.arrow(spec, "merge")
        if len(new) != 1 or not old:
            fail("merge: one name is needed on the right", asked=f'"{spec}"', fix='for example "kv group -> heads"')
        for name in old:
            self._position(name, "merge")
        if new[0] in self._axes and new[0] not in old:
            fail(f"merge: the tensor already has an axis {new[0]!r}", found={"tensor": self}, fix="rename it first")
        rest = [name for name in self._axes if name not in old]
        # The merged axis stands where the last of its members stood: what is merged is mostly contracted next, together
        # with what lies behind it.
        last = max(self._axes.index(name) for name in old)
        place = sum(1 for name in self._axes[:last] if name not in old)
        order = (*rest[:place], *old, *rest[place:])
        sizes = self.sizes
        shape = [*(sizes[n] for n in rest[:place]), math.prod(sizes[n] for n in old), *(sizes[n] for n in rest[place:])]
        return self._make(jnp.reshape(self._transposed(order), shape), (*rest[:place], new[0], *rest[place:]))

    def flatten(self, spec: str) -> Tensor:
        """All axes as one, in the order written: `flatten("b h w c -> n")`."""
        old, _ = _axes.arrow(spec, "flatten")
        left_out = [name for name in self._axes if name not in old]
        if left_out:
            fail(
                f"flatten: {left_out[0]!r} is left out",
                asked=f'"{spec}"',
                found={"tensor": self},
                fix="name every axis, or use merge, which leaves the others alone",
            )
        return self.merge(spec)

    def transpose(self, order: str) -> Tensor:
        """The same tensor stored in another order. Results never depend on it; speed may."""
        wanted = _axes.names(order, "transpose")
        if set(wanted) != set(self._axes):
            self._order_mismatch("transpose", order, wanted)
        return self._make(self._transposed(wanted), wanted)

    def broadcast(self, /, **sizes: int) -> Tensor:
        """The same values along new axes: `broadcast(b=4)`. This is how an outer product is asked for."""
        shape = [_axes.size("broadcast", name, size) for name, size in sizes.items()]
        for name in _axes.names(" ".join(sizes), "broadcast"):
            if name in self._axes:
                fail(
                    f"broadcast: the tensor already has {name!r}",
                    found={"tensor": self},
                    fix="an axis of size 1 is dropped by squeeze first" if self.size(name) == 1 else None,
                )
        self._check_rank()
        shape.extend(self._array.shape)
        kept = range(len(sizes), len(shape))
        return self._make(lax.broadcast_in_dim(self._values(), shape, list(kept)), (*sizes, *self._axes))

    def squeeze(self, axes: str) -> Tensor:
        """The tensor without the named axes, each of size one."""
        positions = self._positions(axes, "squeeze")
        for p in positions:
            if self._array.shape[p] != 1:
                fail(
                    f"squeeze: {self._axes[p]!r} has size {self._array.shape[p]}, not 1",
                    found={"tensor": self},
                    fix=f'pick one element: x.index("{self._axes[p]}", 0), or reduce it',
                )
        kept = [name for i, name in enumerate(self._axes) if i not in positions]
        return self._make(lax.squeeze(self._values(), positions), kept)

    def unstack(self, axis: str) -> list[Tensor]:
        """One tensor for each position along `axis`, without that axis."""
        position = self._position(axis, "unstack")
        rest = [name for name in self._axes if name != axis]
        values = self._values()
        return [
            self._make(lax.index_in_dim(values, i, position, keepdims=False), rest)
            for i in range(values.shape[position])
        ]

    def pad(self, fill: Scalar = 0, /, **widths: tuple[int, int]) -> Tensor:
        """`fill` before and after named axes: `pad(w=(1, 1), h=(0, 2))`. Negative widths crop."""
        for name in widths:
            if name not in self._axes:
                fail(f"pad: {name!r} is not an axis", found={"tensor": self}, fix=did_you_mean(name, self._axes))
            pair = widths[name]
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(type(n) is int for n in pair):
                fail(f"pad: {name}={pair!r} is not a pair of numbers", fix=f"before and after: {name}=(1, 1)")
            if self.size(name) + min(sum(pair), *pair) < 0:
                fail(f"pad: {name}={pair} crops more than the axis has", found={"tensor": self})
        config = [(*widths.get(name, (0, 0)), 0) for name in self._axes]
        return self._make(lax.pad(self._values(), literal("pad", fill, self), config), self._axes)
