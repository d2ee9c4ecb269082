"""From XLA's list of steps to the plan that the native CPU device follows (docs/ntx-format.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from namedtensor._errors import ModelError, fail
from namedtensor.export.cpu import _contraction
from namedtensor.export.cpu._compile import Compiled
from namedtensor.export.cpu._hlo import Hlo, dtype_of, order_of
from namedtensor.export.cpu._link import Image

_ALIGNMENT = 64


@dataclass
class Plan:
    """The plan as JSON, and the constants that it refers to."""

    json: dict[str, Any]
    constants: bytearray
    #: Bytes of memory that a call needs besides its arguments and results.
    temporaries: int


@dataclass
class _Builder:
    name: str
    hlo: Hlo
    image: Image
    allocations: list[Any]
    functions: dict[str, int] = field(default_factory=dict)
    #: XLA's allocations that are used, and their numbers in the plan.
    used: dict[int, int] = field(default_factory=dict)

    def slice(self, proto: Any) -> list[int]:
        """A slice of memory as allocation, offset and size."""
        return self.place(proto.buffer_allocation_index, proto.offset, proto.size)

    def place(self, index: int, offset: int, size: int) -> list[int]:
        allocation = self.allocations[index]
        if allocation.is_thread_local or offset < 0 or size < 0 or offset + size > allocation.size:
            fail(f"{self.name}: XLA's plan refers to memory that no step can have", kind=ModelError)
        return [self.used.setdefault(index, len(self.used)), offset, size]

    def function(self, name: str) -> int:
        """The number of an entry point into the machine code."""
        if name not in self.image.symbols:
            fail(f"{self.name}: XLA emitted no code for {name}", kind=ModelError)
        return self.functions.setdefault(name, len(self.functions))

    def refuse(self, thunk: Any, why: str) -> Any:
        """The native device cannot run a step: say which one, and where in the model it comes from."""
        name = thunk.info.op_name
        found = {"operation": self.hlo.operation(name)}
        line = self.hlo.line(name)
        if line is not None:
            found["line"] = line
        fail(
            f"{self.name}: the native CPU device cannot run {thunk.kind} ({name}): {why}", found=found, kind=ModelError
        )

    def steps(self, sequence: Any) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = []
        for thunk in sequence.thunks:
            if thunk.HasField("call_thunk"):
                steps += self.steps(thunk.call_thunk.called_sequence)
            elif thunk.kind in _STEPS:
                steps.append(_STEPS[thunk.kind](self, thunk))
            else:
                self.refuse(thunk, "it has nothing that does this")
        return steps


def make_plan(compiled: Compiled, image: Image, name: str) -> Plan:
    """Translate XLA's steps for one program; `name` is the program's in errors.

    Raises `ModelError` for a step that the native device cannot run, with the operation and the model's line.
    """
    result = compiled.result
    hlo = Hlo(result.hlo_module.hlo_module, result.buffer_assignment)
    allocations = sorted(result.buffer_assignment.buffer_allocations, key=lambda allocation: allocation.index)
    if [allocation.index for allocation in allocations] != list(range(len(allocations))):
        fail(f"{name}: XLA's allocations are not numbered from 0", kind=ModelError)
    builder = _Builder(name, hlo, image, allocations)
    steps = builder.steps(result.thunk_sequence)
    results = _results(builder)
    arguments = [_spec(parameter.shape, parameter.name) for parameter in hlo.parameters()]
    constants = bytearray()
    listed = [_allocation(builder, allocations[index], constants) for index in builder.used]
    plan = {
        "requires": list(compiled.features),
        "level": compiled.level,
        "arguments": arguments,
        "results": results,
        "allocations": listed,
        "image": {
            "text": image.text,
            "rebase": image.rebase,
            "imports": [{"name": import_name, "at": at} for import_name, at in image.imports.items()],
        },
        "functions": [{"name": function, "at": image.symbols[function]} for function in builder.functions],
        "steps": steps,
    }
    temporaries = sum(entry["size"] for entry in listed if entry["kind"] == "temporary")
    return Plan(plan, constants, temporaries)


def _spec(shape: Any, what: str) -> dict[str, Any]:
    """Type and shape of an argument or result, which callers have in row-major order."""
    if order_of(shape) != tuple(range(len(shape.dimensions))):
        fail(f"{what}: arguments and results must lie in row-major order", kind=ModelError)
    return {"dtype": str(dtype_of(shape, what)), "shape": list(shape.dimensions)}


def _results(builder: _Builder) -> list[dict[str, Any]]:
    aliases = {
        tuple(entry.output_shape_index): entry.parameter_number
        for entry in builder.hlo.module.input_output_alias.entries
    }
    listed = []
    found = builder.hlo.results()
    for i, (shape, place) in enumerate(found):
        alias = aliases.get((i,), aliases.get(()) if len(found) == 1 else None)
        spec = _spec(shape, f"{builder.name}: result {i}")
        listed.append({**spec, "aliases": alias, "from": builder.place(*place)})
    return listed


def _allocation(builder: _Builder, allocation: Any, constants: bytearray) -> dict[str, Any]:
    if allocation.is_entry_computation_parameter:
        if allocation.parameter_shape_index:
            fail(f"{builder.name}: an argument is a tuple", kind=ModelError)
        return {"kind": "argument", "size": allocation.size, "index": allocation.parameter_number}
    if allocation.is_constant:
        constants += bytes(-len(constants) % _ALIGNMENT)
        offset = len(constants)
        constants += builder.hlo.constant(allocation)
        return {"kind": "constant", "size": allocation.size, "offset": offset}
    return {"kind": "result" if allocation.maybe_live_out else "temporary", "size": allocation.size}


def _kernel(builder: _Builder, thunk: Any) -> dict[str, Any]:
    kernel = thunk.kernel_thunk
    groups = kernel.num_workgroups
    if kernel.min_alignment.contains_value and kernel.min_alignment.value > _ALIGNMENT:
        builder.refuse(thunk, f"it wants memory aligned to {kernel.min_alignment.value} bytes")
    return {
        "step": "kernel",
        "function": builder.function(kernel.kernel_name),
        "workgroups": [groups.x, groups.y, groups.z],
        "arguments": [builder.slice(buffer.slice) for buffer in kernel.arguments_buffers],
        "results": [builder.slice(buffer.slice) for buffer in kernel.results_buffers],
    }


def _copy(builder: _Builder, thunk: Any) -> dict[str, Any]:
    source, target = thunk.copy_thunk.src_buffer_shape, thunk.copy_thunk.dst_buffer_shape
    step: dict[str, Any] = {"step": "copy", "from": builder.slice(source.slice), "to": builder.slice(target.slice)}
    sizes = list(source.shape.dimensions)
    if sizes != list(target.shape.dimensions) or source.shape.element_type != target.shape.element_type:
        builder.refuse(thunk, "shapes differ")
    used = [axis for axis, size in enumerate(sizes) if size != 1]
    orders = [[axis for axis in order_of(shape) if axis in used] for shape in (source.shape, target.shape)]
    if orders[0] != orders[1]:
        width = dtype_of(target.shape, builder.name).itemsize
        strides = _contraction.strides(source.shape)
        step["transposed"] = {
            "width": width,
            "sizes": [sizes[axis] for axis in orders[1]],
            "strides": [strides[axis] for axis in orders[1]],
        }
    return step


def _while(builder: _Builder, thunk: Any) -> dict[str, Any]:
    loop = thunk.while_thunk
    return {
        "step": "while",
        "trips": loop.trip_count.value if loop.trip_count.contains_value else None,
        "predicate": builder.slice(loop.cond_buffer),
        "condition": builder.steps(loop.cond_sequence),
        "body": builder.steps(loop.body_sequence),
    }


def _conditional(builder: _Builder, thunk: Any) -> dict[str, Any]:
    branches = thunk.conditional_thunk
    index = builder.slice(branches.branch_index_buffer)
    if index[2] not in (1, 4):
        builder.refuse(thunk, f"its branch is chosen by {index[2]} bytes")
    return {
        "step": "conditional",
        # One byte is a truth value, for which the first branch is the one that is taken when it is true.
        "index": index,
        "branches": [builder.steps(branch) for branch in branches.branch_sequences],
    }


def _sort(builder: _Builder, thunk: Any) -> dict[str, Any]:
    sort = thunk.sort_thunk
    shape = sort.inputs_shapes[0].shape
    order = order_of(shape)
    at = order.index(sort.dimension % len(order))
    physical = [shape.dimensions[axis] for axis in order]
    outer = inner = 1
    for size in physical[:at]:
        outer *= size
    for size in physical[at + 1 :]:
        inner *= size
    return {
        "step": "sort",
        "comparator": builder.function(sort.comparator_name),
        "inputs": [
            {"at": builder.slice(value.slice), "width": dtype_of(value.shape, builder.name).itemsize}
            for value in sort.inputs_shapes
        ],
        "outer": outer,
        "length": physical[at],
        "inner": inner,
    }


def _top_k(builder: _Builder, thunk: Any) -> dict[str, Any]:
    top = thunk.top_k_thunk
    return {
        "step": "top-k",
        "batch": top.batch_size,
        "length": top.input_size,
        "k": top.k,
        "values": builder.slice(top.values_buffer),
        "largest": builder.slice(top.output_buffer),
        "indices": builder.slice(top.indices_buffer),
    }


def _operand(builder: _Builder, buffer: Any) -> _contraction.Operand:
    return _contraction.Operand(builder.slice(buffer.slice), buffer.shape)


def _dot(builder: _Builder, thunk: Any) -> dict[str, Any]:
    dot = thunk.dot_thunk
    operands = [_operand(builder, b) for b in (dot.lhs_buffer_shape, dot.rhs_buffer_shape, dot.out_buffer_shape)]
    try:
        return _contraction.dot(dot.dot_dimensions, *operands)
    except _contraction.Unknown as unknown:
        return builder.refuse(thunk, str(unknown))


def _convolution(builder: _Builder, thunk: Any) -> dict[str, Any]:
    conv = thunk.convolution_thunk
    buffers = (conv.input_buffer_shape, conv.kernel_buffer_shape, conv.output_buffer_shape)
    try:
        return _contraction.convolution(conv, *[_operand(builder, buffer) for buffer in buffers])
    except _contraction.Unknown as unknown:
        return builder.refuse(thunk, str(unknown))


def _custom_call(builder: _Builder, thunk: Any) -> dict[str, Any]:
    call = thunk.custom_call_thunk
    layout = re.fullmatch(r'\{w_layout = "(nk|kn)"\}', call.backend_config)
    buffers = [*call.op_buffers.arguments_shapes, *call.op_buffers.results_shapes]
    if call.target_name != "nt.dot" or layout is None or len(buffers) != 3:
        return builder.refuse(thunk, f"{call.target_name} is not among the calls that it knows")
    try:
        return _contraction.native_dot(layout.group(1), *[_operand(builder, buffer) for buffer in buffers])
    except _contraction.Unknown as unknown:
        return builder.refuse(thunk, str(unknown))


_STEPS: dict[str, Callable[[_Builder, Any], dict[str, Any]]] = {
    "conditional": _conditional,
    "convolution": _convolution,
    "copy": _copy,
    "custom-call": _custom_call,
    "dot": _dot,
    "kernel": _kernel,
    "sort": _sort,
    "topk": _top_k,
    "while": _while,
}
