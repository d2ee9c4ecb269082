"""Random numbers, from keys that are tensors themselves.

A key is a `Tensor` with the axis `key` of size 2 and type uint32: an ordinary value, which a program takes and returns
as it does any other (`nt.spec("key", "uint32", key=2)`). The generator is Threefry-2x32 (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011) in the counter layout that jax calls partitionable, and bits, integers
and uniform numbers are the same on every platform, eagerly and compiled, and the same as `jax.random`'s from the same
key data. What goes through a logarithm (normal, gumbel, categorical) may differ in the last bit between platforms.

A key is used once: to draw, to `split`, or to `fold_in` different numbers; the keys that `split` gives are those that
folding in 0, 1, ... gives. A key with further axes is as many keys, and every
one of them draws numbers of its own: with keys (b, key), `uniform(keys, "n", n=3)` is (b, n), and what one element
of b gets does not depend on which others are there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from namedtensor import _axes
from namedtensor._base import Base
from namedtensor._dtypes import element_type
from namedtensor._elementwise import aligned, check_operand, floating, is_scalar, kind, same_sizes
from namedtensor._errors import DTypeError, InputError, ModelError, describe, fail
from namedtensor._tensor import Tensor, _sizes

__all__ = ["bernoulli", "categorical", "fold_in", "gumbel", "key", "normal", "randint", "split", "uniform"]

_AXIS = "key"


def key(seed: int | Tensor) -> Tensor:
    """A key, (key=2) uint32, from a seed: a number from 0 to 2**64 - 1, or an integer tensor of up to 32 bits.

    A tensor's axes are kept, for a key from each of its elements.
    """
    if isinstance(seed, Base):
        if kind(seed.dtype) != "integer" or jnp.dtype(seed.dtype).itemsize > 4:
            fail("key: a seed is an integer of up to 32 bits", found={"seed": seed}, kind=DTypeError)
        if _AXIS in seed.axes:
            fail("key: the seed already has an axis 'key'", found={"seed": seed}, fix="this may be a key already")
        low = seed._values().astype(jnp.uint32)
        return Tensor._of(jnp.stack([jnp.zeros_like(low), low], axis=-1), (*seed.axes, _AXIS))
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        fail(f"key: a seed is a whole number from 0 to 2**64 - 1, not {describe(seed)}", kind=InputError)
    words = np.array([int(seed) >> 32, int(seed) & 0xFFFFFFFF], np.uint32)
    return Tensor._of(jnp.asarray(words), (_AXIS,))


def split(key: Tensor, count: int = 2) -> tuple[Tensor, ...]:
    """`count` new keys: `key, sub = nt.random.split(key)`. For keys along an axis, see `fold_in`."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        fail(f"split: {count!r} is not a number of keys", found={"key": key})
    data, axes = _data("split", key)
    parts = _each(lambda k: jax.random.key_data(jax.random.split(k, int(count))), data)
    return tuple(Tensor._of(parts[..., i, :], (*axes, _AXIS)) for i in range(count))


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """A new key from a key and a number, such as the step of a loop.

    `data` is a whole number from 0 to 2**32 - 1 or an integer tensor of up to 32 bits. Axes that key and data share
    pair up; those that one of them lacks are added: `fold_in(key, nt.arange("b", 4))` is four keys, (b, key).
    """
    words, axes = _data("fold_in", key)
    if isinstance(data, Base):
        if kind(data.dtype) != "integer" or jnp.dtype(data.dtype).itemsize > 4:
            fail("fold_in: an integer of up to 32 bits is needed", found={"data": data}, kind=DTypeError)
        if _AXIS in data.axes:
            fail("fold_in: the second argument is a number to fold in, not a key", found={"data": data})
        same_sizes("fold_in", {"key": key, "data": data})
        numbers, own = data._values().astype(jnp.uint32), data.axes
    else:
        if isinstance(data, bool) or not isinstance(data, (int, np.integer)) or not 0 <= data < 2**32:
            fail(f"fold_in: {describe(data)} is not a whole number from 0 to 2**32 - 1", found={"key": key})
        numbers, own = jnp.asarray(np.uint32(data)), ()
    order = (*axes, *(name for name in own if name not in axes))
    sizes = {**dict(zip(own, numbers.shape, strict=True)), **dict(zip(axes, words.shape, strict=False))}
    shape = tuple(sizes[name] for name in order)
    words = words.reshape(*words.shape[:-1], *(1 for _ in order[len(axes) :]), 2)
    numbers = jnp.broadcast_to(aligned(Tensor._of(numbers, own), order), shape)
    pairs = jnp.broadcast_to(words, (*shape, 2))
    return Tensor._of(
        _each(lambda k, n: jax.random.key_data(jax.random.fold_in(k, n)), pairs, numbers), (*order, _AXIS)
    )


def uniform(
    key: Tensor, axes: str = "", /, *, low: float = 0.0, high: float = 1.0, dtype: Any = "float32", **sizes: int
) -> Tensor:
    """Numbers from `low` up to but not including `high`, all equally likely: `uniform(key, "b s", b=2, s=8)`."""
    target = _floating("uniform", dtype)
    return _draw("uniform", key, axes, sizes, lambda k, shape: jax.random.uniform(k, shape, target, low, high))


def normal(key: Tensor, axes: str = "", /, *, dtype: Any = "float32", **sizes: int) -> Tensor:
    """Numbers of the standard normal distribution: mean 0, variance 1."""
    target = _floating("normal", dtype)
    return _draw("normal", key, axes, sizes, lambda k, shape: jax.random.normal(k, shape, target))


def gumbel(key: Tensor, axes: str = "", /, *, dtype: Any = "float32", **sizes: int) -> Tensor:
    """Numbers of the standard Gumbel distribution; the largest of logits plus these is a draw from their softmax."""
    target = _floating("gumbel", dtype)
    return _draw("gumbel", key, axes, sizes, lambda k, shape: jax.random.gumbel(k, shape, target, mode="low"))


def randint(key: Tensor, axes: str = "", /, *, low: int = 0, high: int, dtype: Any = "int32", **sizes: int) -> Tensor:
    """Whole numbers from `low` up to but not including `high`: `randint(key, "b", high=6, b=4)`."""
    target = element_type("randint", dtype)
    if kind(target) != "integer":
        fail(f"randint: an integer type is needed, not {target}", kind=DTypeError)
    info = np.iinfo(target)
    if not info.min <= low < high <= info.max:
        fail(
            f"randint: nothing lies between low={low} and high={high} within {target}",
            fix="high is one past the largest number",
            kind=InputError,
        )
    return _draw("randint", key, axes, sizes, lambda k, shape: jax.random.randint(k, shape, low, high, target))


def bernoulli(key: Tensor, p: float | Tensor = 0.5, axes: str = "", /, **sizes: int) -> Tensor:
    """Truth values that are true with probability `p`, a number or a floating tensor.

    With a number the axes are written out, `bernoulli(key, 0.1, "b s", b=2, s=8)`; with a tensor they are its own.
    """
    if is_scalar(p):
        return uniform(key, axes, **sizes) < float(p)
    check_operand("bernoulli", p, key)
    assert isinstance(p, Tensor)
    floating("bernoulli", p)
    if axes or sizes:
        fail("bernoulli: the axes are those of p; none can be given", found={"p": p}, fix="p.broadcast(...)")
    return _noise("bernoulli", key, p, uniform) < p.cast("float32")


def categorical(key: Tensor, logits: Tensor, axis: str) -> Tensor:
    """Places along `axis`, int32, drawn with the probabilities `logits.softmax(axis)`.

    The result has the logits' axes without `axis`, every element drawn on its own, in f32. It does not depend on the
    order in which the logits are stored. Keys with axes draw for the elements of theirs.
    """
    check_operand("categorical", logits, key)
    floating("categorical", logits)
    logits._position(axis, "categorical")
    return (logits.cast("float32") + _noise("categorical", key, logits, gumbel)).argmax(axis)


def _floating(op: str, dtype: Any) -> np.dtype[Any]:
    target = element_type(op, dtype)
    if kind(target) != "floating":
        fail(f"{op}: a floating type is needed, not {target}", kind=DTypeError)
    return target


def _noise(op: str, key: Tensor, like: Tensor, draw: Callable[..., Tensor]) -> Tensor:
    """Noise for every element of a tensor, the same however that tensor is stored: counted in the order of names."""
    _, batch = _data(op, key)
    for name in batch:
        if name not in like.axes:
            fail(
                f"{op}: the keys have axis {name!r}, and what they draw for has not",
                found={"key": key, "drawn for": like},
            )
    same_sizes(op, {"key": key, "drawn for": like})
    rest = {name: size for name, size in sorted(like.sizes.items()) if name not in batch}
    return draw(key, " ".join(rest), **rest)


def _draw(op: str, key: Tensor, axes: str, sizes: dict[str, int], draw: Callable[..., jax.Array]) -> Tensor:
    data, batch = _data(op, key)
    order = _axes.names(axes, op)
    shape = _sizes(op, order, sizes)
    for name in order:
        if name in batch:
            fail(
                f"{op}: axis {name!r} is one of the keys', each of which draws numbers of its own",
                asked=f'"{axes}"',
                found={"key": key},
                fix=f"leave {name!r} out; the result has it anyway",
            )
    return Tensor._of(_each(functools.partial(draw, shape=shape), data), (*batch, *order))


def _data(op: str, key: Any) -> tuple[jax.Array, tuple[str, ...]]:
    """The words of the keys, along the last axis, and the names of the other axes."""
    if not isinstance(key, Tensor) or _AXIS not in key.axes or key.size(_AXIS) != 2 or key.dtype != jnp.uint32:
        fail(
            f"{op}: the first argument is a random key, a tensor (key=2) uint32",
            found={"key": key},
            fix="nt.random.key(seed)",
            kind=DTypeError,
        )
    if not jax.config.jax_threefry_partitionable:
        fail(
            f"{op}: jax_threefry_partitionable is off, and the same key would draw other numbers",
            fix="leave it at its default, which is on",
            kind=ModelError,
        )
    batch = tuple(name for name in key.axes if name != _AXIS)
    return key._transposed((*batch, _AXIS)), batch


def _each(fn: Callable[..., jax.Array], data: jax.Array, *more: jax.Array) -> jax.Array:
    """`fn` of every key in `data`, whose last axis holds the words, and of the elements of `more`."""
    keys = jax.random.wrap_key_data(data, impl="threefry2x32")
    for _ in range(keys.ndim):
        fn = jax.vmap(fn)
    return fn(keys, *more)
