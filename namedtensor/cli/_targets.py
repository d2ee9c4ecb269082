"""`namedtensor targets`: what programs can be compiled for."""

from __future__ import annotations

from dataclasses import asdict

import click

from namedtensor.cli import _app, _output


@click.command(short_help="List what programs can be compiled for.")
@_app.as_json
@_app.debug
def command(as_json: bool) -> None:
    """List the targets of `namedtensor compile`, none of which this machine needs to have.

    A chip that is not among them is described by a file: copy one of `namedtensor/targets/*.toml`, change it, and give
    its path as the target.
    """
    from namedtensor import compilers

    every = compilers.known()
    if as_json:
        rows = [{"name": one.name, "platform": one.platform, "chips": one.chips, **asdict(one.chip)} for one in every]
        _output.print_json({"targets": rows})
        return
    table = _output.table(
        "target", "chip", "architecture", "memory", "bandwidth", "bf16", right="memory bandwidth bf16"
    )
    for one in every:
        chip = one.chip
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
