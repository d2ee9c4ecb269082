"""Loops and branches that become part of the program: scan, while_loop, cond."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from namedtensor._base import Base
from namedtensor._errors import AxisError, DTypeError, ModelError, describe, did_you_mean, fail
from namedtensor._tensor import Tensor, _one


def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    *,
    axis: str,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Call `carry, y = fn(carry, x)` for each element along `axis`, and stack what comes out along it.

    `init` and `xs` are tensors, or modules, tuples, lists or dicts of them. Every tensor in `xs` has `axis`; `fn` gets
    it without. Every tensor in `y` is returned with `axis` added. Without `xs`, `length` says how often; `reverse`
    goes from the last element to the first. What is the same in every step is closed over, not put in `xs`.

    The carry keeps its structure, sizes and types from step to step. The order in which `fn` happens to store its axes
    does not matter.

    The loop is compiled once, whatever its length. Returns the last carry and the stacked `y`.
    """
    (name,) = _one(axis, "scan")
    carry = _Tree("scan", "init", init)
    steps = _Tree("scan", "xs", xs)
    counted = _length(name, steps, length)
    outputs: _Tree | None = None

    def step(arrays: list[jax.Array], slices: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        nonlocal outputs
        parts = [tuple(n for n in axes if n != name) for axes in steps.axes]
        result = fn(carry.build(arrays), steps.build(slices, parts))
        if not isinstance(result, tuple) or len(result) != 2:
            fail(
                "scan: the function returns two things, the new carry and this step's output",
                found={"returned": result if isinstance(result, Base) else f"a {type(result).__name__}"},
                fix="return carry, None where there is no output",
                kind=ModelError,
            )
        outputs = _Tree("scan", "y", result[1])
        for path, tensor in zip(outputs.paths, outputs.tensors, strict=True):
            if name in tensor.axes:
                fail(
                    f"scan: the output y{path} already has the axis {name!r} along which outputs are stacked",
                    found={f"y{path}": tensor},
                    fix="rename it, or reduce over it",
                )
        return carry.match(result[0], "the new carry"), [t._values() for t in outputs.tensors]

    slices = [t._transposed((name, *(n for n in t.axes if n != name))) for t in steps.tensors]
    last, stacked = lax.scan(step, carry.arrays, slices, length=counted, reverse=reverse)
    assert outputs is not None
    return carry.build(last), outputs.build(stacked, [(name, *t.axes) for t in outputs.tensors])


def while_loop(condition: Callable[[Any], Tensor], body: Callable[[Any], Any], init: Any) -> Any:
    """Call `carry = body(carry)` as long as `condition(carry)`, a tensor with one truth value, is true.

    The carry, a tensor or a tree of them, keeps its structure, sizes and types; the order of its axes does not matter.
    Returns the last carry.
    """
    carry = _Tree("while_loop", "init", init)

    def go_on(arrays: list[jax.Array]) -> jax.Array:
        return _truth("while_loop", "the condition", condition(carry.build(arrays)))

    def step(arrays: list[jax.Array]) -> list[jax.Array]:
        return carry.match(body(carry.build(arrays)), "the new carry")

    return carry.build(lax.while_loop(go_on, step, carry.arrays))


def cond(pred: Tensor, yes: Callable[..., Any], no: Callable[..., Any], *operands: Any) -> Any:
    """`yes(*operands)` where `pred`, a tensor with one truth value, is true, and `no(*operands)` where it is not.

    Only one of them runs, but both become part of the program, so what they return must have the same structure,
    axes, sizes and types. To choose element by element, use `where`.
    """
    truth = _truth("cond", "the predicate", pred)
    given = _Tree("cond", "operands", operands)
    first: _Tree | None = None

    def branch(label: str, fn: Callable[..., Any]) -> Callable[[list[jax.Array]], list[jax.Array]]:
        def run(arrays: list[jax.Array]) -> list[jax.Array]:
            nonlocal first
            result = fn(*given.build(arrays))
            if first is None:
                first = _Tree("cond", label, result)
                return first.arrays
            return first.match(result, label)

        return run

    arrays = lax.cond(truth, branch("branch yes", yes), branch("branch no", no), given.arrays)
    assert first is not None
    return first.build(arrays)


class _Tree:
    """A tree of tensors, taken apart into arrays and put together again."""

    def __init__(self, op: str, label: str, tree: Any) -> None:
        self.op, self.label = op, label
        self.structure: Any  # jax's own annotation of a PyTreeDef cannot be compared
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_tensor)
        self.paths = [jax.tree_util.keystr(path) for path, _ in leaves]
        for path, leaf in zip(self.paths, (leaf for _, leaf in leaves), strict=True):
            if not isinstance(leaf, Tensor):
                fail(
                    f"{op}: {label}{path} is not a tensor with named axes",
                    found={f"{label}{path}": leaf},
                    fix='wrap it: nt.wrap(value, "")' if not getattr(leaf, "ndim", 0) else "nt.wrap(array, axes)",
                    kind=DTypeError,
                )
        self.tensors: list[Tensor] = [leaf for _, leaf in leaves]
        self.axes = [tensor.axes for tensor in self.tensors]

    @property
    def arrays(self) -> list[jax.Array]:
        return [tensor._values() for tensor in self.tensors]

    def build(self, arrays: list[jax.Array], axes: list[tuple[str, ...]] | None = None) -> Any:
        tensors = [Tensor._of(*pair) for pair in zip(arrays, axes or self.axes, strict=True)]
        return jax.tree_util.tree_unflatten(self.structure, tensors)

    def match(self, tree: Any, label: str) -> list[jax.Array]:
        """The arrays of another tree in this one's orders. Raises where anything but the order of axes differs."""
        other = _Tree(self.op, label, tree)
        if other.structure != self.structure:
            lost = [p for p in self.paths if p not in other.paths]
            new = [p for p in other.paths if p not in self.paths]
            differ = [
                f"{who} lacks {paths[0] or 'the tensor'}" for who, paths in ((label, lost), (self.label, new)) if paths
            ]
            fail(
                f"{self.op}: {label} and {self.label} are not built alike"
                + (f": {', '.join(differ)}" if differ else ""),
                found={self.label: self.outline(), label: other.outline()},
                fix="return the same structure of tuples, dicts and modules",
                kind=ModelError,
            )
        for path, ours, theirs in zip(self.paths, self.tensors, other.tensors, strict=True):
            found = {f"{self.label}{path}": ours, f"{label}{path}": theirs}
            where = f"{label}{path}"
            if set(ours.axes) != set(theirs.axes):
                odd = [n for n in theirs.axes if n not in ours.axes]
                lost = [n for n in ours.axes if n not in theirs.axes]
                what = f"has an axis {odd[0]!r}" if odd else f"lacks the axis {lost[0]!r}"
                fix = did_you_mean(odd[0], lost) if odd and lost else None
                if lost and not odd:
                    fix = f"repeat it along that axis: .broadcast({lost[0]}={ours.size(lost[0])})"
                fail(f"{self.op}: {where} {what}, unlike {self.label}", found=found, fix=fix)
            for name in ours.axes:
                if ours.size(name) != theirs.size(name):
                    fail(
                        f"{self.op}: {where} has {name}={theirs.size(name)}, and {self.label} {name}={ours.size(name)}",
                        found=found,
                        fix="sizes are fixed while a program runs: write into a buffer with dynamic_update",
                    )
            if ours.dtype != theirs.dtype:
                fail(
                    f"{self.op}: {where} holds {theirs.dtype}, and {self.label} {ours.dtype}",
                    found=found,
                    fix=f'cast it: .cast("{ours.dtype}")',
                    kind=DTypeError,
                )
        return [theirs._transposed(ours.axes) for ours, theirs in zip(self.tensors, other.tensors, strict=True)]

    def outline(self) -> str:
        """The tree in one line."""
        parts = [
            f"{path or 'tensor'} {describe(tensor)}" for path, tensor in zip(self.paths, self.tensors, strict=True)
        ]
        return "; ".join(parts) or "nothing"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _length(axis: str, steps: _Tree, length: int | None) -> int:
    known: int | None = None
    for path, tensor in zip(steps.paths, steps.tensors, strict=True):
        if axis not in tensor.axes:
            fail(
                f"scan: xs{path} has no axis {axis!r} to go along",
                found={f"xs{path}": tensor},
                fix="what is the same in every step is closed over, not passed in xs",
            )
        size = tensor.size(axis)
        if known is not None and known != size:
            fail(
                f"scan: axis {axis!r} has size {known} in xs{steps.paths[0]} and {size} in xs{path}",
                found={f"xs{p}": t for p, t in zip(steps.paths, steps.tensors, strict=True)},
            )
        known = size
    if known is None and length is None:
        fail("scan: there is nothing to go along", fix="give xs, or length=")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 0):
        fail(f"scan: length={length!r} is not a number of steps")
    if known is not None and length is not None and known != length:
        fail(f"scan: length={length}, and xs has {known} along {axis!r}", fix="leave length out; xs says it")
    return known if known is not None else int(length or 0)


def _truth(op: str, what: str, value: Any) -> jax.Array:
    if not isinstance(value, Tensor):
        fail(
            f"{op}: {what} is not a tensor",
            found={what.removeprefix("the "): value},
            fix="what is known while tracing is a case for Python's if" if isinstance(value, bool) else None,
            kind=DTypeError,
        )
    if value.axes:
        fail(
            f"{op}: {what} has axes ({', '.join(value.axes)}); one truth value is needed",
            found={what.removeprefix("the "): value},
            fix=f'reduce it: .all("{" ".join(value.axes)}") or .any(...); element by element: nt.where',
            kind=AxisError,
        )
    if value.dtype != jnp.bool_:
        fail(
            f"{op}: {what} holds {value.dtype}, not a truth value",
            found={what.removeprefix("the "): value},
            fix="compare it: x != 0",
            kind=DTypeError,
        )
    return value._values()
