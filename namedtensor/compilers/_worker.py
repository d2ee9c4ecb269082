"""One compilation for one target, in a process of its own: `python -m namedtensor.compilers._worker JOB.json`.

A plugin brings its own copy of the compiler, writes to the process's streams as it likes, and can bring the process
down; so it gets one to itself. The job names the plugin, the topology and the programs; results are files beside it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    # libtpu asks the cloud's metadata server for what chip it runs on unless told not to.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Several TPU targets are compiled side by side, and none of them holds a chip that the others could want.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    client, devices = compile_only(job)
    for program in job["programs"]:
        began = time.perf_counter()
        executable = compile_one(client, devices, Path(program["bytecode"]))
        output = Path(program["output"])
        output.write_bytes(executable.serialize())
        output.with_suffix(".hlo").write_text("\n".join(module.to_string() for module in executable.hlo_modules()))
        stats = executable.get_compiled_memory_stats()
        report = {
            "name": program["name"],
            "seconds": time.perf_counter() - began,
            "code_bytes": int(stats.generated_code_size_in_bytes),
            "argument_bytes": int(stats.argument_size_in_bytes),
            "output_bytes": int(stats.output_size_in_bytes),
            "alias_bytes": int(stats.alias_size_in_bytes),
            "temporary_bytes": int(stats.temp_size_in_bytes),
            "peak_kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        print(json.dumps(report), flush=True)


def compile_only(job: dict[str, Any]) -> tuple[Any, Any]:
    """The plugin's client for a topology that this machine does not have, and the device to compile for."""
    from jaxlib import _jax

    from namedtensor.compilers import _stubs

    library = Path(job["library"])
    if job["platform"] == "rocm":
        _stubs.preload(library, Path(job["stubs"]))
    plugin = _jax.load_pjrt_plugin(job["platform"], str(library), None)
    _jax.initialize_pjrt_plugin(job["platform"])
    topology = _jax.get_c_api_topology(plugin, job["topology"], job["options"])
    devices = topology._make_compile_only_devices()
    return devices[0].client, _jax.DeviceList(tuple(devices[:1]))


def compile_one(client: Any, devices: Any, bytecode: Path) -> Any:
    """One program, from portable bytecode, for one replica on one device."""
    import numpy as np
    from jax._src.interpreters import mlir
    from jaxlib import _jax

    options = _jax.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = _jax.DeviceAssignment.create(np.zeros((1, 1), np.int32))
    with mlir.make_ir_context():
        module = _jax.mlir.deserialize_portable_artifact(bytecode.read_bytes())
        return client.compile(module, devices, options)


if __name__ == "__main__":
    main()
