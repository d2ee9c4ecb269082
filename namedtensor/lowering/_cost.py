"""What a traced program costs: arithmetic, and the bytes that no compiler can avoid moving."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

# Operations that pick a few elements of a large operand: they read what they return, not what they are given.
_PICKING = {"gather", "dynamic_slice", "slice"}
# Operations that only pass a value on, under another shape or type.
_PASSING = {"reshape", "transpose", "convert_element_type", "squeeze", "expand_dims", "copy", "bitcast_convert_type"}
# Operations that move or make values and do no arithmetic.
_FREE = {
    *_PICKING,
    *_PASSING,
    "broadcast_in_dim",
    "concatenate",
    "dynamic_update_slice",
    "iota",
    "pad",
    "rev",
    "select_n",
    "scatter",
    "stop_gradient",
    "random_wrap",
    "random_unwrap",
}


@dataclass(frozen=True)
class Cost:
    """Of one entry point, once through.

    - `flops`: a multiply-add counts 2; contractions and convolutions exactly, any other arithmetic 1 an element.
      Loops whose length is not known while tracing count once.
    - `weight_bytes`: weights read, an embedding table only by the rows that are looked up.
    - `state_bytes`: donated inputs, read once. `io_bytes`: other inputs, and results that are not state.
    """

    flops: int
    weight_bytes: int
    state_bytes: int
    io_bytes: int

    @property
    def bytes(self) -> int:
        """The fewest bytes that must pass between memory and processor."""
        return self.weight_bytes + self.state_bytes + self.io_bytes

    def bound(self, flops_per_second: float, bytes_per_second: float) -> tuple[float, str]:
        """The roofline's bound in seconds, and which side sets it: `compute` or `memory`."""
        compute, memory = self.flops / flops_per_second, self.bytes / bytes_per_second
        return (compute, "compute") if compute > memory else (memory, "memory")


def cost_of(traced: jax.stages.Traced) -> Cost:
    """Cost of a traced entry point, whose arguments are weights, donated inputs and other inputs."""
    jaxpr = traced.jaxpr.jaxpr
    groups = [jax.tree.leaves(group) for group in traced.in_avals[0]]
    ends = list(itertools.accumulate(len(group) for group in groups))
    weights, state, given = (jaxpr.invars[end - len(group) : end] for group, end in zip(groups, ends, strict=True))
    reads: dict[Any, int] = {}
    _read(jaxpr, {variable: variable for variable in weights}, reads)
    read = sum(min(reads.get(variable, 0), _nbytes(variable.aval)) for variable in weights)
    kept = sum(_nbytes(variable.aval) for variable in state)
    moved = sum(_nbytes(variable.aval) for variable in given)
    results = sum(_nbytes(variable.aval) for variable in jaxpr.outvars)
    return Cost(_flops(jaxpr), read, kept, moved + max(results - kept, 0))


def _read(jaxpr: Any, origin: dict[Any, Any], reads: dict[Any, int]) -> None:
    """Add up the bytes that are read of each weight; `origin` says which variable holds which weight."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        sources = [origin.get(v) if isinstance(v, jex.Var) else None for v in equation.invars]
        inner = _inner(equation)
        if inner:
            for body in inner:
                # Loops and branches have arguments of their own in front; calls hand theirs over one for one.
                offset = len(equation.invars) - len(body.invars)
                inside = {v: s for v, s in zip(body.invars, sources[max(offset, 0) :], strict=False) if s is not None}
                _read(body, inside, reads)
            continue
        if name in _PASSING and sources[0] is not None:
            origin[equation.outvars[0]] = sources[0]
            continue
        for source in sources:
            if source is not None:
                size = _nbytes(equation.outvars[0].aval) if name in _PICKING else _nbytes(source.aval)
                reads[source] = reads.get(source, 0) + size


def _flops(jaxpr: Any) -> int:
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
    name = equation.primitive.name
    inner = _inner(equation)
    if inner:
        return sum(_flops(body) for body in inner) * int(equation.params.get("length", 1))
    result = equation.outvars[0].aval
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(result.shape) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        numbers = equation.params["dimension_numbers"]
        kernel = equation.invars[1].aval.shape
        # Each element of the result sums over the window and the input channels of its group.
        return 2 * math.prod(result.shape) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    if name in _FREE or not hasattr(result, "shape"):
        return 0
    widest = max((v.aval for v in (*equation.invars, *equation.outvars)), key=lambda aval: math.prod(aval.shape))
    return math.prod(widest.shape)


def _inner(equation: Any) -> list[Any]:
    """Bodies of a call, loop or branch. Of branches, the one to count: for a choice of platforms the general one."""
    params = equation.params
    if equation.primitive.name == "cond":
        bodies = [branch.jaxpr for branch in params["branches"]]
        return bodies[-1:] if params.get("branches_platforms") else [max(bodies, key=_flops)]
    if equation.primitive.name == "while":
        return [params["body_jaxpr"].jaxpr]
    if equation.primitive.name in ("reduce", "reduce_window", "scatter-add", "sort"):
        return []
    return [getattr(value, "jaxpr", value) for key, value in params.items() if key in ("jaxpr", "call_jaxpr")]


def _nbytes(aval: Any) -> int:
    if not hasattr(aval, "shape"):
        return 0
    return math.prod(aval.shape) * int(np.dtype(aval.dtype).itemsize)
