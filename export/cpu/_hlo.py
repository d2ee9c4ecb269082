"""What XLA's optimized program says about its instructions: where results lie, constants, and lines of the model."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from namedtensor._errors import ModelError, fail

#: Element types by XLA's numbers (xla_data.proto), and their names in files.
DTYPES: dict[int, Any] = {
    1: np.dtype(np.bool_),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.uint8),
    7: np.dtype(np.uint16),
    8: np.dtype(np.uint32),
    9: np.dtype(np.uint64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    16: np.dtype(ml_dtypes.bfloat16),
}

# Fields of a literal that hold its elements: one number each, or bytes.
_LITERAL = {
    1: "preds",
    2: "s8s",
    3: "s16s",
    4: "s32s",
    5: "s64s",
    6: "u8s",
    7: "u16s",
    8: "u32s",
    9: "u64s",
    10: "f16s",
    11: "f32s",
    12: "f64s",
    16: "bf16s",
}

Index = tuple[int, ...]


def dtype_of(shape: Any, what: str) -> Any:
    """The numpy type of a shape's elements. Raises `ModelError` for those that no file here can hold."""
    if shape.element_type not in DTYPES:
        fail(
            f"{what}: XLA's element type {shape.element_type} is not supported on the native CPU device",
            kind=ModelError,
        )
    return DTYPES[shape.element_type]


def order_of(shape: Any) -> tuple[int, ...]:
    """Axes in the order in which they lie in memory, outermost first."""
    minor_to_major = tuple(shape.layout.minor_to_major)
    return tuple(reversed(minor_to_major)) if minor_to_major else tuple(range(len(shape.dimensions)))


class Hlo:
    """The optimized program."""

    def __init__(self, module: Any, buffers: Any) -> None:
        self.module = module
        self.computations = {computation.id: computation for computation in module.computations}
        self.instructions = {i.id: i for c in module.computations for i in c.instructions}
        self.by_name = {i.name: i for i in self.instructions.values()}
        self.entry = self.computations[module.entry_computation_id]
        # Which buffer an instruction defines, if it does.
        self._buffers = {
            (logical.defined_at.instruction_id, tuple(logical.defined_at.shape_index)): logical.id
            for logical in buffers.logical_buffers
        }
        self._defined = {logical.id: logical.defined_at.instruction_id for logical in buffers.logical_buffers}
        # Where each buffer is: allocation, offset, size.
        self._slices = {
            assigned.logical_buffer_id: (allocation.index, assigned.offset, assigned.size)
            for allocation in buffers.buffer_allocations
            for assigned in allocation.assigned
        }

    def parameters(self) -> list[Any]:
        """Instructions of the program's arguments, in order."""
        found = [i for i in self.entry.instructions if i.opcode == "parameter"]
        return sorted(found, key=lambda i: i.parameter_number)

    def results(self) -> list[tuple[Any, tuple[int, int, int]]]:
        """Shape and slice of each result, in order."""
        root = self.instructions[self.entry.root_id]
        shapes = list(root.shape.tuple_shapes)
        if not shapes and root.shape.element_type in DTYPES:
            return [(root.shape, self.slice_of(root.id, ()))]
        return [(shape, self.slice_of(root.id, (i,))) for i, shape in enumerate(shapes)]

    def slice_of(self, instruction: int, index: Index) -> tuple[int, int, int]:
        """Allocation, offset and size of the buffer that holds (a part of) an instruction's value."""
        logical = self._source(instruction, index, ())
        if logical not in self._slices:
            fail(f"XLA gave {self.instructions[instruction].name} no memory", kind=ModelError)
        return self._slices[logical]

    def _source(self, instruction: int, index: Index, calls: tuple[int, ...]) -> int:
        """The buffer that holds a value, followed through instructions that only pass on what others computed.

        `calls`: the instructions that called the computation which `instruction` belongs to, outermost first.
        """
        found = self._buffers.get((instruction, index))
        if found is not None:
            return found
        i = self.instructions[instruction]
        operands = list(i.operand_ids)
        if i.opcode == "tuple":
            return self._source(operands[index[0]], index[1:], calls)
        if i.opcode == "get-tuple-element":
            return self._source(operands[0], (i.tuple_index, *index), calls)
        if i.opcode in ("bitcast", "while", "opt-barrier", "optimization-barrier", "add-dependency"):
            # A loop's state lies where its first value did.
            return self._source(operands[0], index, calls)
        if i.opcode == "call":
            return self._source(self.computations[i.called_computation_ids[0]].root_id, index, (*calls, instruction))
        if i.opcode == "parameter" and calls:
            caller = self.instructions[calls[-1]]
            return self._source(caller.operand_ids[i.parameter_number], index, calls[:-1])
        fail(f"it cannot be told where {i.name} ({i.opcode}) puts its value", kind=ModelError)

    def constant(self, allocation: Any) -> bytes:
        """The contents of an allocation that holds a constant."""
        for assigned in allocation.assigned:
            instruction = self.instructions.get(self._defined.get(assigned.logical_buffer_id, -1))
            if instruction is not None and instruction.opcode == "constant":
                data = _literal(instruction.literal, instruction.name)
                if len(data) != allocation.size:
                    break
                return data
        fail(f"constant {allocation.index} of {self.module.name} has no value of its size", kind=ModelError)

    def line(self, name: str) -> str | None:
        """`llama/model.py:41`, the line of the model that an instruction comes from, if it says so."""
        instruction = self.by_name.get(name)
        if instruction is None:
            return None
        metadata, index = instruction.metadata, self.module.stack_frame_index
        frame = metadata.stack_frame_id
        if 0 < frame <= len(index.stack_frames):
            place = index.stack_frames[frame - 1].file_location_id
            if 0 < place <= len(index.file_locations):
                location = index.file_locations[place - 1]
                if 0 < location.file_name_id <= len(index.file_names):
                    return f"{index.file_names[location.file_name_id - 1]}:{location.line}"
        return f"{metadata.source_file}:{metadata.source_line}" if metadata.source_file else None

    def operation(self, name: str) -> str:
        """How the model's own operation is called (`jit(main)/Attention/sort`), or the instruction's name."""
        instruction = self.by_name.get(name)
        return (instruction.metadata.op_name if instruction is not None else "") or name


def _literal(literal: Any, what: str) -> bytes:
    dtype = dtype_of(literal.shape, what)
    values = getattr(literal, _LITERAL[literal.shape.element_type])
    return bytes(values) if isinstance(values, bytes) else np.array(values, dtype).tobytes()
