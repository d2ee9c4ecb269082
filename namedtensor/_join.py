"""Operations over several tensors: where, concat, stack."""

from collections.abc import Sequence

import jax.numpy as jnp

from namedtensor._base import Base, Scalar
from namedtensor._elementwise import aligned, check_operand, is_scalar, literal, same_dtype, same_sizes, superset
from namedtensor._errors import DTypeError, fail
from namedtensor._tensor import Tensor, _one


def where(condition: Tensor, yes: Tensor | Scalar, no: Tensor | Scalar) -> Tensor:
    """`yes` where `condition` is true, `no` elsewhere; aligned by name, one of the three having all axes."""
    if not isinstance(condition, Base):
        fail("where: the condition is not a tensor", found={"condition": condition}, kind=DTypeError)
    if condition.dtype != jnp.bool_:
        fail("where: the condition must hold truth values", found={"condition": condition}, kind=DTypeError)
    tensors: dict[str, Base] = {"condition": condition}
    for label, value in (("yes", yes), ("no", no)):
        if not is_scalar(value):
            check_operand("where", value, condition)
            assert isinstance(value, Base)
            tensors[label] = value
    if len(tensors) == 1:
        fail(
            "where: one of the two values must be a tensor, to say of what type the result is",
            asked=f"nt.where(condition, {yes!r}, {no!r})",
            found={"condition": condition},
            fix=f'nt.wrap({yes!r}, "")',
            kind=DTypeError,
        )
    if len(tensors) == 3:
        same_dtype("where", tensors["yes"], tensors["no"], ("yes", "no"))
    order = superset("where", tensors)
    like = tensors.get("yes", tensors.get("no"))
    assert like is not None
    left, right = (
        aligned(tensors[label], order) if label in tensors else literal("where", value, like)
        for label, value in (("yes", yes), ("no", no))
    )
    picked = jnp.where(aligned(condition, order), left, right)
    return Tensor._of(jnp.broadcast_to(picked, [_size(tensors, name) for name in order]), order)


def _size(tensors: dict[str, Base], name: str) -> int:
    return next(t.size(name) for t in tensors.values() if name in t.axes)


def concat(tensors: Sequence[Tensor], axis: str) -> Tensor:
    """Tensors one after another along `axis`. All must have the same axes, and the same sizes but along `axis`."""
    first, rest = _same_axes("concat", tensors)
    place = first._position(axis, "concat")
    for i, tensor in enumerate(rest, 1):
        for name in first.axes:
            if name != axis and tensor.size(name) != first.size(name):
                fail(
                    f"concat: axis {name!r} has size {first.size(name)} and {tensor.size(name)}",
                    asked=f'along "{axis}"',
                    found={"tensor 0": first, f"tensor {i}": tensor},
                )
    return Tensor._of(jnp.concatenate([t._transposed(first.axes) for t in tensors], place), first.axes)


def stack(tensors: Sequence[Tensor], axis: str) -> Tensor:
    """Tensors of the same axes and sizes along a new `axis`."""
    (name,) = _one(axis, "stack")
    first, rest = _same_axes("stack", tensors)
    if name in first.axes:
        fail(
            f"stack: the tensors already have an axis {name!r}", found={"tensor 0": first}, fix="concat joins along it"
        )
    for i, tensor in enumerate(rest, 1):
        same_sizes("stack", {"tensor 0": first, f"tensor {i}": tensor})
    return Tensor._of(jnp.stack([t._transposed(first.axes) for t in tensors]), (name, *first.axes))


def _same_axes(what: str, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    if isinstance(tensors, Base) or not isinstance(tensors, (list, tuple)) or not tensors:
        fail(f"{what}: a list of at least one tensor is needed", found={"tensors": tensors})
    first, *rest = tensors
    for i, tensor in enumerate(tensors):
        check_operand(what, tensor, next((t for t in tensors if isinstance(t, Base)), first))
        if set(tensor.axes) != set(first.axes):
            fail(
                f"{what}: tensor {i} has other axes than tensor 0",
                found={"tensor 0": first, f"tensor {i}": tensor},
                fix="rename or broadcast them to the same names",
            )
        same_dtype(what, first, tensor, ("tensor 0", f"tensor {i}"))
    return first, rest
