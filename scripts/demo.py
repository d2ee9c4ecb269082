"""What `make demo` shows: scanned digits classified, and sentences ranked by meaning, with real weights.

Every step is a command that a person could type; it is printed before it runs, and timed.

    python -m scripts.demo
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from scripts import fetch_minilm

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sysconfig.get_path("scripts"), "namedtensor")
SCANS = ROOT / "models" / "digits" / "scans"
# There are two of each digit: enough to show one of each.
MAX_SCANS = 10

QUERY = "How do I copy a trained model to a server?"
SENTENCES = (
    "The archive holds the compiled program and its weights; unpack it on the machine that serves.",
    "Deploying a neural network takes one file and no package manager.",
    "The kettle whistled while the rain fell on the tin roof.",
    "Our cat sleeps on the radiator from October to April.",
)


class DemoError(Exception):
    """A step failed; the message says which."""


def say(text: str = "") -> None:
    """Prints at once, so that the text stands before what the next command prints."""
    print(text, flush=True)


def relative(path: Path) -> str:
    """A path as a person in the checkout would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def show(*arguments: str) -> None:
    """Prints a namedtensor command, runs it in the checkout, and prints how long it took.

    Raises:
        DemoError: the command failed; it has said why.
    """
    shown = shlex.join([relative(COMMAND), *arguments])
    say(f"$ {shown}")
    began = time.monotonic()
    status = subprocess.run([COMMAND, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise DemoError(f"`{shown}` exited with status {status}.")
    say(f"  ({time.monotonic() - began:.1f} s)")
    say()


def chosen(scans: Sequence[Path]) -> list[Path]:
    """At most MAX_SCANS of the scans, spread evenly, in order."""
    step = max(1, len(scans) // MAX_SCANS)
    return list(scans[::step][:MAX_SCANS])


def main() -> int:
    began = time.monotonic()
    scans = chosen(sorted(SCANS.glob("*.png")))
    try:
        if not scans:
            raise DemoError(f"There are no scans in {relative(SCANS)}.")
        say("Handwritten digits, scanned, that the model was not trained on; their names begin with what they show:")
        say()
        show("run", "digits", *map(relative, scans), "--top", "1")

        say("Sentences ranked against a question, with the published weights of all-MiniLM-L6-v2:")
        say()
        if not fetch_minilm.present():
            say("Downloading the weights (84 MB, once) ...")
        weights = fetch_minilm.fetch()
        show("run", "minilm", "--weights", relative(weights), QUERY, *SENTENCES)
    except (DemoError, fetch_minilm.FetchError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    say(f"All of it took {time.monotonic() - began:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
