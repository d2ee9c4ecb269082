"""Time and memory to compile a Llama for four kinds of hardware: `python -m benchmarks.cross_compile [--all]`.

The 1.1 B Llama with 16 layers, one bucket of prefill and a decode step (`--all`: every bucket and entry point of the
zoo's model), for an H100, an MI300X, a TPU v5e and CPUs with AVX-512, together, from the checkpoint's header alone. The
compilers must be in the cache: the first run fetches them, which is not what this measures, so run it twice.

Memory is the largest sum, over the process and all that it started, of their proportional share of memory (PSS: what
processes have in common counts once), sampled five times a second. Then, for each target, what an archive holds besides
weights: executables, and the plugin with the libraries that they call.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import zstandard

import namedtensor as nt
from benchmarks import weights
from benchmarks.shapes import LLAMA_1B
from namedtensor import compilers, zoo
from namedtensor.export.archive._plugins import pack

TARGETS = ("cuda:h100", "rocm:mi300x", "tpu:v5e-1", "cpu:x86-64-v4")
PREFILL = 128
_EVERY = 0.2


def program(directory: Path, everything: bool) -> nt.Program:
    whole = zoo.find("llama").program(directory, {"context": LLAMA_1B.context})
    if everything:
        return whole
    entries = {name: whole.entries[name] for name in ("prefill", "decode")}
    tokens = nt.spec("b s", "int32", b=1, s=PREFILL)
    inputs = {**entries["prefill"].inputs, "tokens": tokens}
    entries["prefill"] = nt.entry(entries["prefill"].fn, donate=" ".join(entries["prefill"].donate), **inputs)
    return nt.Program(whole.model, entries, name="llama")


def compile_all(directory: Path, everything: bool, output: Path) -> None:
    """In a process of its own: compile, and write what was made and which libraries it calls."""
    found = compilers.compile_for(program(directory, everything), [compilers.target(name) for name in TARGETS])
    for name, variants in found.items():
        place = output / name.replace(":", "-")
        place.mkdir()
        for compiled in variants:
            (place / f"{compiled.variant}.{compiled.suffix}").write_bytes(compiled.serialized)
        called = sorted({library for compiled in variants for library in compiled.libraries})
        (output / f"{place.name}.libraries").write_text("\n".join(called))
        print(f"{name}: " + ", ".join(f"{one.variant} {one.seconds:.1f} s" for one in variants), flush=True)


def children(of: int) -> list[int]:
    """A process and everything that it started."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [of]
    for process in found:
        found += parents.get(process, [])
    return found


def memory(processes: Iterable[int]) -> int:
    """Their proportional share of memory, in bytes."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds that a command takes, and the most memory that its processes had together."""
    began = time.perf_counter()
    peak = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, memory(children(process.pid)))
            time.sleep(_EVERY)
        if process.returncode != 0:
            raise SystemExit(process.returncode)
    return time.perf_counter() - began, peak


def sizes(files: Iterable[Path]) -> tuple[int, int]:
    """Bytes of files, and of what an archive would compress them to."""
    plain, small = 0, 0
    for path in files:
        data = path.read_bytes()
        plain += len(data)
        small += len(zstandard.ZstdCompressor(level=3, threads=-1).compress(data))
    return plain, small


def table(output: Path) -> None:
    print("\n| target | executables | compressed | plugin and libraries | compressed | libraries called |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in TARGETS:
        place = output / name.replace(":", "-")
        called = (output / f"{place.name}.libraries").read_text().split()
        platform = name.partition(":")[0]
        beside: list[Path] = []
        if platform != "cpu":
            pack(platform, called, output / "packed", inside=True)
            beside = [path for path in (output / "packed" / "plugins" / platform).rglob("*") if path.is_file()]
        numbers = (*sizes(place.iterdir()), *sizes(beside))
        shown = " | ".join(f"{number / 1e6:.1f} MB" if number else "" for number in numbers)
        print(f"| {name} | {shown} | {', '.join(called) or 'none'} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every bucket and entry point")
    parser.add_argument("--compile", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compile is not None:
        compile_all(options.compile, options.all, options.output)
        return
    with tempfile.TemporaryDirectory() as name:
        checkpoint = weights.write(Path(name) / "llama", LLAMA_1B, sparse=True)
        output = Path(name) / "output"
        output.mkdir()
        command = [sys.executable, "-m", "benchmarks.cross_compile", "--compile", str(checkpoint)]
        command += ["--output", str(output), *(["--all"] if options.all else [])]
        seconds, peak = measured(command)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{len(TARGETS)} targets together: {seconds:.0f} s, at most {peak / 1e9:.2f} GB of memory")
        print(f"processor time: {used.ru_utime + used.ru_stime:.0f} s")
        print(f"load of the machine, one minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        table(output)


if __name__ == "__main__":
    main()
