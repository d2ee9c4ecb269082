"""Convolution and pooling over named windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from namedtensor import _axes
from namedtensor._base import Base
from namedtensor._dot import accumulator, result_type
from namedtensor._elementwise import check_operand, floating, kind, same_dtype
from namedtensor._errors import DTypeError, did_you_mean, fail

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor

type Sides = Literal["valid", "same", "same_lower"] | int | tuple[int, int]
type Padding = Sides | Mapping[str, Sides]
type PerAxis = int | Mapping[str, int]


class Windows(Base):
    """Operations over windows that slide along named axes."""

    __slots__ = ()

    def conv(
        self,
        kernel: Tensor,
        axes: str,
        *,
        window: Mapping[str, str],
        stride: PerAxis = 1,
        padding: Padding = "valid",
        dilation: PerAxis = 1,
        groups: int = 1,
        dtype: Any = None,
    ) -> Tensor:
        """Sum of products over the named axes, as in `dot`, and over a window that slides along others.

            image.conv(kernel, "c", window={"h": "kh", "w": "kw"}, padding="same")

        takes `image` (b, c, h, w) and `kernel` (out, c, kh, kw) to (b, out, h, w). `window` says along which axes of
        this tensor each axis of the kernel slides; the kernel is not flipped (a cross-correlation, as in every deep
        learning library). Axes that only one side has are kept, as many as there are.

        Names that both sides have and that are neither contracted nor part of the window are kept too, and pair up:
        each of their elements has a kernel of its own. So a depthwise convolution is `conv(kernel, "", ...)` with a
        kernel (c, kh, kw), or (c, multiplier, kh, kw). `groups` is for kernels that come with groups folded into their
        channels, (out, c / groups, kh, kw): both channel axes are cut into that many parts, the outermost first.

        `stride`, `padding` and `dilation` hold for all axes of the window, or are given by name: `stride={"h": 2}`.
        `padding` is "valid" (none), "same" (as many results as the size divided by the stride, rounded up; an odd
        zero goes to the end), "same_lower" (to the front), a number for both sides, or a pair of numbers.

        Products are accumulated in f32 as in `dot`, and `dtype` is the result's type where it is not the operands'.
        """
        check_operand("conv", kernel, self)
        slide = _window_axes("conv", self, window)
        taps = self._taps("conv", kernel, window)
        contracted = _axes.names(axes, "conv")
        found = {"tensor": self, "kernel": kernel}
        groups = _groups(groups, contracted, found)
        for side, tensor, taken in (("tensor", self, slide), ("kernel", kernel, tuple(window.values()))):
            for name in contracted:
                if name not in tensor.axes or name in taken:
                    pool = [n for n in tensor.axes if n not in taken]
                    fail(
                        f"conv: {name!r} is part of the window and cannot be contracted too"
                        if name in taken
                        else f"conv: {name!r} is not an axis of the {side} ({', '.join(tensor.axes)})",
                        asked=f'x.conv(kernel, "{axes}", window={dict(window)})',
                        found=found,
                        fix=None if name in taken else did_you_mean(name, pool),
                    )
        same_dtype("conv", self, kernel, ("tensor", "kernel"))
        if kind(self.dtype) == "bool":
            fail("conv: truth values cannot be multiplied", found=found, fix="cast first", kind=DTypeError)
        shared = tuple(n for n in self._axes if n in kernel.axes and n not in (*slide, *contracted, *window.values()))
        batch = tuple(n for n in self._axes if n not in (*shared, *contracted, *slide))
        free = tuple(n for n in kernel.axes if n not in (*shared, *contracted, *window.values()))
        for name in free:
            if name in self._axes:
                fail(
                    f"conv: {name!r} is an axis of the window in the tensor and a channel in the kernel",
                    found=found,
                    fix=f'rename one: {name!r} means two things here, .rename("{name} -> out")',
                )
        for name in shared:
            _agree(name, self, kernel, found)
        # One order for the channels of both sides; the tensor's, which is the larger one to move.
        contracted = tuple(n for n in self._axes if n in contracted)
        for name in contracted:
            _agree(name, self, kernel, found, groups)
        if groups > 1 and (len(free) != 1 or kernel.size(free[0]) % groups):
            fail(
                f"conv: with groups={groups} the kernel needs one axis of output channels, which they divide",
                found=found,
                fix="groups folded into channels can be split apart instead: name them as an axis on both sides",
            )
        strides, dilations = (_per_axis("conv", k, v, window) for k, v in (("stride", stride), ("dilation", dilation)))
        extents = [d * (taps[name] - 1) + 1 for name, d in zip(slide, dilations, strict=True)]
        pads = _padding("conv", self, slide, extents, strides, padding)
        out = result_type("conv", dtype, self)

        x, x_order = _fold(self, [batch, (*shared, *contracted), *((name,) for name in slide)])
        # The kernel's output channels are the groups' and its own, the groups' outermost.
        k, k_order = _fold(kernel, [(*shared, *free), contracted, *((window[name],) for name in slide)])
        result = lax.conv_general_dilated(
            x,
            k,
            strides,
            pads,
            rhs_dilation=dilations,
            dimension_numbers=lax.ConvDimensionNumbers(x_order, k_order, x_order),
            feature_group_count=groups * math.prod(self.size(name) for name in shared),
            precision=lax.Precision.HIGHEST if self.dtype == jnp.float32 else None,
            preferred_element_type=accumulator(self.dtype, out),
        ).astype(out)
        sizes = {**kernel.sizes, **self.sizes}
        sizes.update((name, result.shape[at]) for name, at in zip(slide, x_order[2:], strict=True))
        unfolded: list[tuple[str, ...]] = [()] * result.ndim
        for at, part in zip(x_order, [batch, (*shared, *free), *((name,) for name in slide)], strict=True):
            unfolded[at] = part
        order = [name for part in unfolded for name in part]
        return self._make(result.reshape([sizes[name] for name in order]), order)

    def max_pool(
        self,
        *,
        window: Mapping[str, int],
        stride: PerAxis | None = None,
        padding: Padding = "valid",
        dilation: PerAxis = 1,
    ) -> Tensor:
        """The largest value in a window of the given sizes: `max_pool(window={"h": 3, "w": 3}, stride=2)`.

        `stride` is the window's own size where it is not given. `padding` as in `conv`; padded places never win. Over
        a whole axis, it is `max("h w")`.
        """
        if kind(self.dtype) == "bool":
            fail("max_pool: numbers are needed, not truth values", found={"tensor": self}, kind=DTypeError)
        low: Any = -jnp.inf if kind(self.dtype) == "floating" else jnp.iinfo(self.dtype).min
        values, slide, sizes, strides, dilations, pads = self._pool("max_pool", window, stride, padding, dilation)
        pooled = self._reduce_window(values, low, lax.max, slide, sizes, strides, dilations, pads)
        return self._make(pooled, self._axes)

    def avg_pool(
        self,
        *,
        window: Mapping[str, int],
        stride: PerAxis | None = None,
        padding: Padding = "valid",
        count_include_pad: bool = True,
    ) -> Tensor:
        """The mean of a window of the given sizes, accumulated in f32 or wider.

        `stride` is the window's own size where it is not given. `padding` as in `conv`: padded zeros count as
        elements of the window, unless `count_include_pad` is false. Over a whole axis, it is `mean("h w")`.
        """
        floating("avg_pool", self)
        values, slide, sizes, strides, dilations, pads = self._pool("avg_pool", window, stride, padding, 1)
        wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        total = self._reduce_window(wide, 0.0, lax.add, slide, sizes, strides, dilations, pads)
        if count_include_pad:
            return self._make((total / math.prod(sizes)).astype(values.dtype), self._axes)
        for name, size, step, (low, _) in zip(slide, sizes, strides, pads, strict=True):
            at = self._axes.index(name)
            first = np.arange(total.shape[at]) * step - low
            count = np.minimum(first + size, values.shape[at]) - np.maximum(first, 0)
            total = total / jnp.asarray(lax.expand_dims(count, [i for i in range(total.ndim) if i != at]), total.dtype)
        return self._make(total.astype(values.dtype), self._axes)

    def _pool(
        self, op: str, window: Mapping[str, int], stride: PerAxis | None, padding: Padding, dilation: PerAxis
    ) -> tuple[jax.Array, tuple[str, ...], list[int], list[int], list[int], list[tuple[int, int]]]:
        slide = _window_axes(op, self, window)
        sizes = _per_axis(op, "window", window, window)
        strides = sizes if stride is None else _per_axis(op, "stride", stride, window)
        dilations = _per_axis(op, "dilation", dilation, window)
        extents = [d * (size - 1) + 1 for size, d in zip(sizes, dilations, strict=True)]
        pads = _padding(op, self, slide, extents, strides, padding)
        for name, extent, pair in zip(slide, extents, pads, strict=True):
            if max(pair) >= extent:
                fail(
                    f"{op}: padding {pair} along {name!r} is as wide as the window ({extent}), which would see "
                    "nothing but padding",
                    found={"tensor": self},
                )
        return self._values(), slide, sizes, strides, dilations, pads

    def _reduce_window(
        self,
        values: jax.Array,
        start: Any,
        fn: Any,
        slide: tuple[str, ...],
        sizes: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[tuple[int, int]],
    ) -> jax.Array:
        def spread(parts: Sequence[Any], rest: Any) -> list[Any]:
            table = dict(zip(slide, parts, strict=True))
            return [table.get(name, rest) for name in self._axes]

        pooled: jax.Array = lax.reduce_window(
            values,
            np.asarray(start, values.dtype)[()],
            fn,
            spread(sizes, 1),
            spread(strides, 1),
            spread(pads, (0, 0)),
            window_dilation=spread(dilations, 1),
        )
        return pooled

    def _taps(self, op: str, kernel: Base, window: Mapping[str, str]) -> dict[str, int]:
        """Size of the kernel along each axis of the window."""
        for name, tap in window.items():
            if tap not in kernel.axes:
                fail(
                    f"{op}: {tap!r} is not an axis of the kernel ({', '.join(kernel.axes)})",
                    asked=f"window={dict(window)}",
                    found={"tensor": self, "kernel": kernel},
                    fix=did_you_mean(str(tap), [n for n in kernel.axes if n not in window.values()]),
                )
            if kernel.size(tap) == 0:
                fail(f"{op}: the kernel is empty along {tap!r}", found={"tensor": self, "kernel": kernel})
            if list(window.values()).count(tap) > 1:
                fail(f"{op}: {tap!r} slides along two axes, {name!r} is one", asked=f"window={dict(window)}")
        return {name: kernel.size(tap) for name, tap in window.items()}


def _window_axes(op: str, tensor: Base, window: Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(window, Mapping) or not window:
        fail(
            f"{op}: the window is a dict that names at least one axis",
            found={"tensor": tensor, "window": window},
            fix='window={"h": "kh", "w": "kw"}' if op == "conv" else 'window={"h": 3, "w": 3}',
        )
    for name in window:
        tensor._position(name, op)
    return tuple(window)


def _per_axis(op: str, what: str, value: Any, window: Mapping[str, Any]) -> list[int]:
    """One whole number from 1 for every axis of the window; 1 where a dict leaves one out."""
    for name in value if isinstance(value, Mapping) else ():
        if name not in window:
            fail(f"{op}: {what} names {name!r}, which the window does not", fix=did_you_mean(str(name), window))
    numbers = [value.get(name, 1) if isinstance(value, Mapping) else value for name in window]
    for name, number in zip(window, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            fail(
                f"{op}: {what} {number!r} along {name!r} is not a whole number from 1",
                fix=f"one number for all axes, or {what}={{{', '.join(f'{n!r}: 2' for n in window)}}}",
            )
    return [int(number) for number in numbers]


def _padding(
    op: str, tensor: Base, slide: tuple[str, ...], extents: list[int], strides: list[int], padding: Any
) -> list[tuple[int, int]]:
    """Zeros before and after each axis of the window. Raises where the window does not fit into what comes of it."""
    for name in padding if isinstance(padding, Mapping) else ():
        if name not in slide:
            fail(f"{op}: padding names {name!r}, which the window does not", fix=did_you_mean(str(name), slide))
    pads = []
    for name, extent, stride in zip(slide, extents, strides, strict=True):
        size = tensor.size(name)
        asked = padding.get(name, "valid") if isinstance(padding, Mapping) else padding
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        match asked:
            case "valid":
                low, high = 0, 0
            case "same":
                low, high = total // 2, total - total // 2
            case "same_lower":
                low, high = total - total // 2, total // 2
            case bool():
                low, high = -1, -1
            case int() | np.integer():
                low, high = int(asked), int(asked)
            case [int() as low, int() as high]:
                pass
            case _:
                low, high = -1, -1
        if low < 0 or high < 0:
            fail(
                f"{op}: {asked!r} is not a padding of {name!r}",
                found={"tensor": tensor},
                fix='"valid", "same", "same_lower", a number, a pair (before, after), or a dict of these by axis',
            )
        if size + low + high < extent:
            fail(
                f"{op}: the window needs {extent} elements along {name!r}, which has {size}"
                + (f" and {low + high} of padding" if low + high else ""),
                found={"tensor": tensor},
                fix=f'pad it: padding="same", or padding={{"{name}": {-((size - extent) // 2)}}}',
            )
        pads.append((low, high))
    return pads


def _groups(groups: Any, contracted: tuple[str, ...], found: Mapping[str, Any]) -> int:
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        fail(f"conv: groups={groups!r} is not a whole number from 1", found=found)
    if groups > 1 and len(contracted) != 1:
        fail(f"conv: groups={groups} cuts one contracted axis, {len(contracted)} are named", found=found)
    return int(groups)


def _agree(name: str, tensor: Base, kernel: Base, found: Mapping[str, Any], groups: int = 1) -> None:
    ours, theirs = tensor.size(name), kernel.size(name)
    if ours != theirs * groups:
        fail(
            f"conv: axis {name!r} has size {ours} in the tensor and {theirs} in the kernel"
            + (f", which with groups={groups} makes {theirs * groups}" if groups > 1 else ""),
            found=found,
            fix=f"groups={ours // theirs} would fit" if theirs and ours % theirs == 0 else None,
        )


def _fold(tensor: Base, parts: Sequence[tuple[str, ...]]) -> tuple[jax.Array, tuple[int, ...]]:
    """The array with each part as one axis, and where each one is. What is stored together is not moved."""
    sizes = tensor.sizes
    first = {part: min((tensor.axes.index(name) for name in part), default=len(sizes)) for part in parts}
    order = sorted(range(len(parts)), key=lambda i: first[parts[i]])
    values = tensor._transposed(tuple(name for i in order for name in parts[i]))
    folded = values.reshape([math.prod(sizes[name] for name in parts[i]) for i in order])
    return folded, tuple(order.index(i) for i in range(len(parts)))
