"""Archives beside a GPU: each one's program on the accelerator and on the CPU, compared and timed. See gpu_check.py."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from namedtensor import zoo
from namedtensor.export import archive

ROOT = Path(__file__).parents[1]
CPU = "cpu:x86-64-v3"
STARTS = 3
SCANS = sorted((ROOT / "models" / "digits" / "scans").glob("*.png"))
PROMPT, TOKENS, SEEDS = "ROMEO:\n", 100, (0, 1, 2)
# The longest that a program may take: plugins need seconds to start.
PATIENCE_S = 120.0


class Refused(Exception):
    """Why an archive cannot be checked here, in one line."""


@dataclass(frozen=True)
class Row:
    """What was found of one archive; times are seconds and rates by target."""

    archive: str
    agrees: bool
    finding: str
    first_output: dict[str, float]
    tokens_per_second: dict[str, float]


@dataclass(frozen=True)
class Program:
    """An unpacked archive, and how it is started on one target or another."""

    path: Path
    accelerator: str
    plugin: Path | None = None
    libraries: tuple[Path, ...] = ()

    def answer(self, target: str, arguments: Sequence[str]) -> dict[str, Any]:
        """What it answers with --json."""
        try:
            done = subprocess.run(
                [*self._command(target, arguments), "--json"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"{self.path.name} on {target}: no answer within {PATIENCE_S:.0f} s") from None
        if done.returncode:
            raise Refused(f"{self.path.name} on {target}: {_last(done.stderr) or f'ended with {done.returncode}'}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def first_output(self, target: str, arguments: Sequence[str]) -> float:
        """Seconds from the start of the process to the first byte that it prints, the median of a few starts."""
        times = []
        for _ in range(STARTS):
            began = time.perf_counter()
            with subprocess.Popen(
                self._command(target, arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdout is not None
                first = os.read(process.stdout.fileno(), 1)
                times.append(time.perf_counter() - began)
                process.stdout.read()
            if not first or process.returncode:
                raise Refused(f"{self.path.name} on {target}: ended with {process.returncode}")
        return statistics.median(times)

    def _command(self, target: str, arguments: Sequence[str]) -> list[str]:
        plugin = ["--plugin", str(self.plugin)] if self.plugin and target == self.accelerator else []
        return [str(self.path), "--target", target, *plugin, *arguments]

    def _environment(self) -> dict[str, str]:
        # Plugins and CUDA's libraries find one another by the loader's path where they are pip's.
        path = [*map(str, self.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {**os.environ, **({"LD_LIBRARY_PATH": ":".join(path)} if path else {})}


def prepare(directory: Path, target: str) -> list[str]:
    """Build an archive of each model, without plugins. Returns: the models' names."""
    for name in CHECKS:
        report = archive.build(
            zoo.find(name).program(None, {}), directory / f"{name}.tar.zst", [CPU, target], plugins=False
        )
        print(f"{name}: an archive of {report.bytes} bytes for {CPU} and {target}")
    return list(CHECKS)


def installed() -> tuple[Path, tuple[Path, ...]]:
    """The CUDA plugin that jax uses here, and where pip put the libraries that it needs."""
    for place in _places("jax_plugins.xla_cuda13"):
        if (library := place / "xla_cuda_plugin.so").is_file():
            return library, tuple(sorted(lib for vendor in _places("nvidia") for lib in vendor.glob("*/lib")))
    raise Refused("jax's plugin for CUDA 13 is not installed here: pip install 'jax[cuda13]'")


def _places(package: str) -> list[Path]:
    """Directories of a package; none where it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    return [] if found is None else list(map(Path, found.submodule_search_locations or ()))


def run(directory: Path, names: Sequence[str], target: str, tolerance: float, **plugin: Any) -> list[Row]:
    """Unpack and check each archive of `directory`: `target` beside the CPU. `plugin` are `Program`'s options."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="namedtensor.") as temporary:
        for name in names:
            program = archive.unpack(directory / f"{name}.tar.zst", Path(temporary))
            rows.append(CHECKS[name](Program(program, target, **plugin), tolerance))
    return rows


def digits(program: Program, tolerance: float) -> Row:
    """Labels have to be equal, and logits close."""
    targets = (program.accelerator, "cpu")
    scans = [str(path) for path in SCANS]
    there, here = (program.answer(target, scans)["images"] for target in targets)
    labels = [[image["labels"][0]["label"] for image in images] for images in (there, here)]
    others = sum(ours != wanted for ours, wanted in zip(*labels, strict=True))
    worst = distance([image["logits"] for image in there], [image["logits"] for image in here])
    return Row(
        "digits",
        others == 0 and worst <= tolerance,
        f"{others} of {len(scans)} labels differ, logits by {worst:.1e}",
        {target: program.first_output(target, scans[:1]) for target in targets},
        {},
    )


def shakespeare(program: Program, tolerance: float) -> Row:
    """Logits have to be close, greedy text equal up to the first near tie, and a seed has to give the same again.

    Whether sampled text is the CPU's is told, and no fault where it is not: each token is a draw at some threshold.
    """
    targets = (program.accelerator, "cpu")
    prompt = ["--prompt", PROMPT, "--max-tokens", str(TOKENS)]
    greedy = [*prompt, "--temperature", "0"]
    there, here = (program.answer(target, greedy) for target in targets)
    text = [*here["prompt_ids"], *here["ids"]]
    logits = [_logits(program, target, text) for target in targets]
    worst = distance(*logits)
    told = [f"logits differ by {worst:.1e}"]
    agrees = worst <= tolerance
    at = parting(there["ids"], here["ids"])
    if at is None:
        told.append(f"greedy text of {len(here['ids'])} tokens equal")
    else:
        # The row of the token before, from which both chose.
        row = logits[1][len(here["prompt_ids"]) + at - 1]
        gap = _gap(row, there["ids"][at : at + 1], here["ids"][at : at + 1])
        agrees &= gap <= tolerance
        told.append(f"greedy text parts at token {at}, where the two choices are {gap:.1e} apart")
    equal = 0
    for seed in SEEDS:
        sampled = [*prompt, "--temperature", "1", "--seed", str(seed)]
        first, again, cpu = (program.answer(target, sampled)["ids"] for target in (targets[0], *targets))
        if first != again:
            agrees = False
            told.append(f"seed {seed} gives another text the second time")
        equal += first == cpu
    told.append(f"{equal} of {len(SEEDS)} seeds give the CPU's text")
    # Of the second start: the first may find cold files.
    rates = {target: program.answer(target, greedy)["tokens_per_second"] for target in targets}
    times = {target: program.first_output(target, greedy) for target in targets}
    return Row("shakespeare", agrees, ", ".join(told), times, rates)


CHECKS: dict[str, Callable[[Program, float], Row]] = {"digits": digits, "shakespeare": shakespeare}


def _logits(program: Program, target: str, ids: Sequence[int]) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="namedtensor.") as temporary:
        file = Path(temporary) / "logits.npy"
        listed = ",".join(map(str, ids))
        program.answer(target, ["--prompt-ids", listed, "--max-tokens", "0", "--logits", str(file)])
        return np.load(file)


def parting(found: Sequence[int], expected: Sequence[int]) -> int | None:
    """Where two texts part; None where they are equal."""
    if list(found) == list(expected):
        return None
    pairs = enumerate(zip(found, expected, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(found), len(expected)))


def _gap(row: np.ndarray, found: Sequence[int], expected: Sequence[int]) -> float:
    """How far apart two tokens are in the logits that they were chosen from; a text that ends early has none."""
    if not found or not expected:
        return float("inf")
    return abs(float(row[found[0]]) - float(row[expected[0]])) / (float(np.abs(row).max()) or 1.0)


def distance(found: Any, expected: Any) -> float:
    """Largest difference, relative to the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max(initial=0)) / (float(np.abs(expected).max(initial=0)) or 1.0)


def show(rows: Sequence[Row], about: dict[str, str], output: Path) -> None:
    """Print a table, and write all of it to a JSON file."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("archive", "", "to the first output", "tokens/s", "found", box=box.SIMPLE_HEAD)
    for row in rows:
        times = "\n".join(f"{target} {seconds:.2f} s" for target, seconds in row.first_output.items())
        rates = "\n".join(f"{target} {rate:.0f}" for target, rate in row.tokens_per_second.items())
        table.add_row(row.archive, "equal" if row.agrees else "DIFFERENT", times, rates, row.finding)
    Console(width=140).print(table)
    text = json.dumps({**about, "archives": [asdict(row) for row in rows]}, indent=1)
    output.write_text(text + "\n")
    print(f"written to {output}")


def _last(text: str) -> str:
    return text.strip().rpartition("\n")[2]
