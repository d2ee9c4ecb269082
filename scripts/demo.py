"""What `make demo` shows: three models on real input, packed for four kinds of chip, run where nothing is.

Every step is a command that a person could type; it is printed before it runs, and timed.

    python -m scripts.demo
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from namedtensor import NamedTensorError
from namedtensor.export.archive import unpack
from scripts import fetch_minilm

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sysconfig.get_path("scripts"), "namedtensor")
SCANS = ROOT / "models" / "digits" / "scans"
ARCHIVES = ROOT / ".cache" / "demo"
# There are two of each digit: enough to show one of each.
MAX_SCANS = 10

QUERY = "How do I copy a trained model to a server?"
SENTENCES = (
    "The archive holds the compiled program and its weights; unpack it on the machine that serves.",
    "Deploying a neural network takes one file and no package manager.",
    "The kettle whistled while the rain fell on the tin roof.",
    "Our cat sleeps on the radiator from October to April.",
)
# Sentences eight at a time, of up to 64 tokens or as many as the model takes: by default there are twenty such sizes.
BUCKETS = ("--set", "batches=8", "--set", "lengths=64")
PROMPT = ("--prompt", "ROMEO.", "--max-tokens", "60", "--seed", "1")

CPUS = ("cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4")
ACCELERATORS = ("cuda:h100", "rocm:mi300x", "tpu:v5e-1")


class DemoError(Exception):
    """A step failed; the message says which."""


def say(text: str = "") -> None:
    """Prints at once, so that the text stands before what the next command prints."""
    print(text, flush=True)


def relative(path: Path) -> str:
    """A path as a person in the checkout would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def show(command: Sequence[str], *, shown: str | None = None, last: int | None = None) -> None:
    """Prints a command, runs it in the checkout, and prints how long it took; of its output all, or the `last` lines.

    Raises:
        DemoError: the command failed; it has said why.
    """
    shown = shown or shlex.join(command)
    say(f"$ {shown}")
    began = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=None if last is None else subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if ended.returncode != 0:
        raise DemoError(f"`{shown}` exited with status {ended.returncode}.")
    if last is not None:
        say("\n".join(ended.stdout.rstrip("\n").split("\n")[-last:]))
    say(f"  ({seconds:.1f} s)" if seconds >= 0.1 else f"  ({seconds * 1000:.0f} ms)")
    say()


def namedtensor(*arguments: str, last: int | None = None) -> None:
    """Shows a namedtensor command."""
    show([str(COMMAND), *arguments], shown=shlex.join([relative(COMMAND), *arguments]), last=last)


def chosen(scans: Sequence[Path]) -> list[Path]:
    """At most MAX_SCANS of the scans, spread evenly, in order."""
    step = max(1, len(scans) // MAX_SCANS)
    return list(scans[::step][:MAX_SCANS])


def build(model: str, *arguments: str) -> Path:
    """Builds a model's archive for all targets. Returns its file."""
    archive = ARCHIVES / f"{model}.tar.zst"
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    targets = [word for target in (*CPUS, *ACCELERATORS) for word in ("--target", target)]
    namedtensor("build", model, *arguments, *targets, "--no-plugins", "-o", relative(archive), last=1)
    return archive


def sandbox() -> list[str] | None:
    """Bubblewrap's command for an empty root file system and no network, where it is here and may make one."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    probe = [program, "--ro-bind", "/", "/", "--unshare-all", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return None
    return [program, "--unshare-all", "--clearenv"]


def run(archive: Path, arguments: Sequence[str], files: Sequence[Path] = ()) -> None:
    """Runs an archive's program in a root that holds the unpacked archive and `files`, and nothing else."""
    name = archive.name.removesuffix(".tar.zst")
    confined = sandbox()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        unpack(archive, root)
        for file in files:
            shutil.copy(file, root / file.name)
        names = [file.name for file in files]
        if confined is None:
            say("(bubblewrap is not here, or may not make namespaces; so this runs in the system as it is.)")
            show([str(root / name / name), *arguments, *(str(root / n) for n in names)], shown=f"./{name}/{name} ...")
            return
        inside = [f"/{name}/{name}", *arguments, *names]
        show([*confined, "--ro-bind", str(root), "/", *inside], shown=shlex.join(["bwrap", "...", *inside]))


def sizes(archives: Sequence[Path]) -> None:
    """Prints a table: what of each archive is for which target."""
    say("Unpacked sizes by what they are for; the weights are every target's:")
    say()
    rows = []
    for archive in archives:
        told = subprocess.run([COMMAND, "inspect", archive, "--json"], check=True, capture_output=True, text=True)
        files = json.loads(told.stdout)["bundle"]["files"]

        def total(prefix: str, files: dict[str, dict[str, int]] = files) -> str:
            return f"{sum(file['bytes'] for path, file in files.items() if path.startswith(prefix)) / 1e6:.1f}"

        targets = [total(f"targets/{target.replace(':', '-')}/") for target in (CPUS[-1], *ACCELERATORS)]
        packed = f"{archive.stat().st_size / 1e6:.1f}"
        rows.append([archive.name.removesuffix(".tar.zst"), packed, *targets, total("weights/")])
    heads = ["MB", "archive", CPUS[-1], *ACCELERATORS, "weights"]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    for first, *rest in (heads, *rows):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        say("  " + "  ".join(cells))
    say()


def demonstrate() -> None:
    """Every step, in order."""
    scans = chosen(sorted(SCANS.glob("*.png")))
    if not scans:
        raise DemoError(f"There are no scans in {relative(SCANS)}.")
    say("Handwritten digits, scanned, that the model was not trained on; their names begin with what they show:")
    say()
    namedtensor("run", "digits", *map(relative, scans), "--top", "1")

    say("Sentences ranked against a question, with the published weights of all-MiniLM-L6-v2:")
    say()
    if not fetch_minilm.present():
        say("Downloading the weights (84 MB, once) ...")
    weights = relative(fetch_minilm.fetch())
    namedtensor("run", "minilm", "--weights", weights, QUERY, *SENTENCES)

    say("A small Llama, trained on Shakespeare:")
    say()
    namedtensor("run", "shakespeare", *PROMPT)

    say("The same three, compiled for four kinds of chip, each in one archive. No accelerator is needed for that.")
    say("(Compilers are downloaded once; --no-plugins: the accelerators' libraries are left to the server.)")
    say()
    minilm = build("minilm", "--weights", weights, *BUCKETS)
    archives = [build("digits"), minilm, build("shakespeare")]
    sizes(archives)

    say("Now without Python: each archive in a root file system of its own, with nothing else in it, and no network:")
    say()
    run(archives[0], ["--top", "1"], scans[:3])
    run(archives[1], [QUERY, *SENTENCES])
    run(archives[2], PROMPT)


def main() -> int:
    began = time.monotonic()
    try:
        demonstrate()
    except (DemoError, NamedTensorError, fetch_minilm.FetchError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"demo: `{shlex.join(map(str, error.cmd))}` exited with status {error.returncode}.", file=sys.stderr)
        return 1
    say(f"All of it took {time.monotonic() - began:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
