"""XLA:CPU's object code for a processor that need not be this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxlib import _jax

from namedtensor import _kernels
from namedtensor._errors import ModelError, fail
from namedtensor.export.cpu._schema import message, varint
from namedtensor.lowering._lower import LoweredEntry

# Nothing may be left to libraries that only jaxlib holds: what is not compiled, the runner has its own code for.
_OPTIONS: dict[str, Any] = {"xla_cpu_use_onednn": False, "xla_cpu_experimental_ynn_fusion_type": ""}

_V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

#: Instruction levels of the x86-64 psABI, and what a processor of each must have.
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}

#: Extensions, by LLVM's names, that a runner can look for in its processor. Code for `native` uses no others.
CHECKED = frozenset(
    (
        *_V4,
        *("adx", "aes", "avx512bf16", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni"),
        *("avx512vpopcntdq", "gfni", "pclmul", "rdrnd", "rdseed", "sha", "vaes", "vpclmulqdq"),
    )
)

# Every x86-64 processor has these.
_BASE = frozenset(("64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"))


@dataclass(frozen=True)
class Compiled:
    """What XLA made of one program."""

    level: str
    #: `xla.cpu.CompilationResultProto`
    result: Any

    @property
    def features(self) -> tuple[str, ...]:
        """The extensions that the code may use, by LLVM's names; all are among `CHECKED`."""
        listed = self.result.target_machine_options.features.split(",")
        return tuple(sorted(name[1:] for name in listed if name[:1] == "+" and name[1:] in CHECKED))


def compile_entry(entry: LoweredEntry, level: str) -> Compiled:
    """Compile a variant, lowered for CPU, for an instruction level (`x86-64-v3`) or this machine (`native`).

    XLA divides loops among at most as many workgroups as this machine has cores; any number of threads can run them.
    Raises `ModelError` for a level that is not known, and where XLA refuses the program.
    """
    if entry.platform != "cpu":
        fail(f"{entry.name} was lowered for {entry.platform}, not for cpu", kind=ModelError)
    return compile_module(entry.stages.compiler_ir("stablehlo"), entry.name, level)


def compile_module(module: Any, name: str, level: str) -> Compiled:
    """As `compile_entry`, from the StableHLO module of a variant that was lowered for CPU."""
    if level != "native" and level not in LEVELS:
        fail(f"{level!r} is no instruction level", fix=f"one of {', '.join(LEVELS)}, native", kind=ModelError)
    _kernels.register()
    devices = _topology(level)._make_compile_only_devices()
    options = _jax.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = _jax.DeviceAssignment.create(np.zeros((1, 1), int))
    # Other options stay as they are in this process: vectors of 512 bits, say, gain a hundredth and change last bits.
    options.env_option_overrides = list(_OPTIONS.items())
    try:
        executable = devices[0].client.compile(module, _jax.DeviceList(tuple(devices[:1])), options)
    except jax.errors.JaxRuntimeError as error:
        fail(
            f"{name}: XLA cannot compile this for {level}: {error}",
            fix="float16 needs x86-64-v3 or later" if level == "x86-64-v2" else None,
            kind=ModelError,
        )
    return Compiled(level, _result(executable.serialize()))


def _topology(level: str) -> Any:
    """This process' CPU, as XLA describes it, with another processor in it."""
    here = _jax.get_topology_for_devices(jax.devices("cpu"))
    description = message("xla.PjRtTopologyDescriptionProto").FromString(here.serialize())
    inner: Any = description.platform_specific_topology
    cpu: Any = message("xla.CpuTopologyProto").FromString(inner.value)
    machine = cpu.target_machine_options
    if level == "native":
        machine.features = ",".join(_checkable(feature) for feature in machine.features.split(",") if feature)
    else:
        machine.cpu = level
        machine.features = ",".join(f"+{name}" for name in LEVELS[level])
    inner.value = cpu.SerializeToString(deterministic=True)
    return _jax.DeviceTopology.deserialize(description.SerializeToString(deterministic=True))


def _checkable(feature: str) -> str:
    """A feature of this machine, switched off where a runner could not tell whether its processor has it."""
    name = feature[1:]
    tuning = name.startswith("prefer-")
    return feature if tuning or name in CHECKED or name in _BASE else f"-{name}"


def _result(serialized: bytes) -> Any:
    """The result out of jaxlib's envelope: a message of given length, then one whose first field it is."""
    try:
        position = _skip(serialized, 0)
        if serialized[position] != 1 << 3 | 2:
            raise IndexError
        length, start = varint(serialized, position + 1)
        if start + length > len(serialized):
            raise IndexError
    except IndexError:
        fail("jaxlib serializes executables in a way that is not known here", kind=ModelError)
    return message("xla.cpu.CompilationResultProto").FromString(serialized[start : start + length])


def _skip(data: bytes, position: int) -> int:
    length, position = varint(data, position)
    return position + length
