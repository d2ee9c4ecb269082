"""Write docs/errors.md: the mistakes of tests/misuses.toml that are marked for the page, and what they answer.

python -m scripts.docs_errors          write the page
"""

import textwrap
from pathlib import Path

from namedtensor._errors import describe
from tests.misuses import Misuse, read

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

INTRODUCTION = """\
# What can go wrong, and what it answers

Names make a program's mistakes visible before it runs: while it is traced, no number has been computed yet. Every
report says what was asked, what was found (both sides, with names and sizes), the line of the model, and the likeliest
fix. All of them are `nt.NamedTensorError`; most are one of two kinds:

- `nt.AxisError` (a `ValueError`): names or sizes do not fit;
- `nt.DTypeError` (a `TypeError`): types do not fit; nothing is promoted behind your back.

Damaged checkpoints give `nt.CheckpointError`, models and configurations that cannot be built `nt.ModelError`, and
arguments that do not fit a model `nt.InputError`.

Here are {count} mistakes. The reports are the same eagerly and under `jax.jit`. This page is written by
`python -m scripts.docs_errors` from the table that the tests hold the project to.
"""


def page() -> str:
    """The text of docs/errors.md."""
    shown = [misuse for misuse in read() if misuse.page]
    parts = [INTRODUCTION.format(count=len(shown)), *(section(i, misuse) for i, misuse in enumerate(shown, 1))]
    return "\n".join(parts)


def section(number: int, misuse: Misuse) -> str:
    """One mistake: its inputs as comments, its code, its report."""
    lines = [f"## {number}. {misuse.title}", ""]
    if misuse.remark:
        lines += [*textwrap.wrap(misuse.remark, 118), ""]
    width = max(map(len, misuse.inputs), default=0)
    inputs = [f"# {name:<{width}}  {describe(tensor)}" for name, tensor in misuse.tensors().items()]
    lines += ["```python", *inputs, misuse.code.strip(), "```", ""]
    lines += ["```text", f"{misuse.kind}: {misuse.report.strip()}", "```", ""]
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
