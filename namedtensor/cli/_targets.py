"""`namedtensor targets`: what programs can be compiled for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from namedtensor.cli import _app, _output

if TYPE_CHECKING:
    from namedtensor.compilers import Target


@click.command(short_help="List what programs can be compiled for.")
@_app.as_json
@_app.debug
def command(as_json: bool) -> None:
    """List the targets of `namedtensor compile` and `build`, none of which this machine needs to have.

    CPU targets are instruction levels: an executable runs on every processor that has its level.

    A chip that is not among them is described by a file: copy one of `namedtensor/targets/*.toml`, change it, and give
    its path as the target.
    """
    from namedtensor import compilers

    every = compilers.known()
    if as_json:
        _output.print_json({"targets": [_document(one) for one in every]})
        return
    table = _output.table(
        "target", "chip", "architecture", "memory", "bandwidth", "bf16", right="memory bandwidth bf16"
    )
    for one in every:
        chip = one.chip
        if chip is None:
            table.add_row(one.name, _processors(one.level), one.level, "", "", "")
            continue
        rate = chip.rate("bfloat16")
        table.add_row(
            one.name,
            chip.name if one.chips == 1 else f"{one.chips} × {chip.name}",
            chip.compiler.get("architecture") or chip.compiler["generation"],
            _output.nbytes(chip.memory_bytes),
            f"{_output.nbytes(chip.memory_bandwidth)}/s",
            "" if rate is None else f"{rate / 1e12:.0f} TFLOP/s",
        )
    _output.print_table(table)


def _document(target: Target) -> dict[str, Any]:
    chip = {} if target.chip is None else asdict(target.chip)
    return {"name": target.name, "platform": target.platform, "chips": target.chips, **chip}


def _processors(level: str) -> str:
    """Those that have an instruction level."""
    known = {
        "x86-64-v2": "with SSE 4.2: since 2009",
        "x86-64-v3": "with AVX2: Intel Haswell, AMD Excavator and later",
        "x86-64-v4": "with AVX-512: Intel Skylake-X, AMD Zen 4 and later",
    }
    return f"x86-64 processors {known[level]}" if level in known else "this machine's processor, and its like"
