"""An archive beside a Python installation: size, start, memory: `python -m benchmarks.archive [--rounds 20]`.

Builds the archive of digits for this machine's CPUs and of the small Llama, unpacks them, and runs each program on real
input: from exec to exit, the median of the rounds, and the most memory that it had: the system's own accounting of the
finished process, which shows none below the 10 MB of the one that starts it. The peer is `namedtensor run` on the same
input in this environment, its compiled programs in the cache already: an interpreter that imports jax. Its size is that
of the installed packages that it needs, without tests and tools.
"""

import argparse
import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from namedtensor import zoo
from namedtensor.export import archive

SCAN = Path(__file__).parents[1] / "models" / "digits" / "scans" / "4-1053.png"
WORK: dict[str, tuple[str, ...]] = {
    "digits": (str(SCAN), "--top", "1"),
    "shakespeare": ("--prompt", "ROMEO.", "--max-tokens", "32", "--temperature", "0"),
}
TARGETS = ("cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4")


# A process counts the memory of the one that it was forked from; so a small one starts what is measured.
LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([time.perf_counter() - began, usage.ru_maxrss * 1024, status]))
"""


def measured(command: Sequence[str | Path]) -> tuple[float, int]:
    """Seconds from exec to exit, and the most memory in bytes. Raises SystemExit where the command fails."""
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    told = subprocess.run(launched, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds, memory, status = json.loads(told)
    if status:
        raise SystemExit(f"{command[0]} failed")
    return seconds, memory


def installed(name: str, seen: set[str]) -> int:
    """Bytes of an installed package and of all that it needs."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return 0
    seen.add(key)
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return 0
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    size = sum(path.stat().st_size for path in paths if path.is_file())
    needs = [need for need in package.requires or () if "extra ==" not in need]
    return size + sum(installed(re.split(r"[^\w.-]", need, maxsplit=1)[0], seen) for need in needs)


def row(name: str, size: int, unpacked: int | None, command: Sequence[str | Path], rounds: int) -> None:
    runs = [measured(command) for _ in range(rounds + 1)][1:]
    seconds = [run[0] * 1000 for run in runs]
    both = f"{size / 1e6:9.1f}  {'' if unpacked is None else f'{unpacked / 1e6:.1f}':>9}"
    memory = max(run[1] for run in runs) / 1e6
    print(f"{name:32}  {both}  {statistics.median(seconds):9.1f}  {max(seconds):9.1f}  {memory:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    seen: set[str] = set()
    python = sum(installed(name, seen) for name in ("jax", "pillow", "tokenizers"))
    print(f"{'':32}  {'packed':>9}  {'unpacked':>9}  {'median':>9}  {'most':>9}  {'memory':>9}")
    print(f"{'':32}  {'MB':>9}  {'MB':>9}  {'ms':>9}  {'ms':>9}  {'MB':>9}")
    with tempfile.TemporaryDirectory() as directory:
        for model, arguments in WORK.items():
            packed = Path(directory) / f"{model}.tar.zst"
            report = archive.build(zoo.find(model).program(), packed, TARGETS)
            program = archive.unpack(packed, Path(directory))
            row(f"{model}, archive", report.bytes, report.unpacked, [program, *arguments], rounds)
            command = [sys.executable, "-c", "import sys; from namedtensor.cli import main; sys.exit(main())"]
            row(f"{model}, Python and jax", python, None, [*command, "run", model, *arguments], max(3, rounds // 4))


if __name__ == "__main__":
    main()
