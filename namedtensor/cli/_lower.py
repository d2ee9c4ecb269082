"""`namedtensor lower`: a model's entry points as StableHLO files."""

from __future__ import annotations

from pathlib import Path

import click

from namedtensor import zoo
from namedtensor.cli import _app, _output

_SUFFIXES = {".mlir": "text", ".mlirbc": "portable bytecode"}
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@click.command(short_help="Write a model's entry points as StableHLO.")
@click.argument("model")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="FILE.mlir for text, FILE.mlirbc for portable bytecode.",
)
@click.option("--platform", type=click.Choice(_PLATFORMS), default="cpu", show_default=True, help="What to lower for.")
@click.option("--entry", metavar="NAME", help="Only this entry point.")
@_app.model_weights
@_app.assignments
@_app.as_json
@_app.debug
def command(
    model: str,
    output: Path,
    platform: str,
    entry: str | None,
    weights: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Lower MODEL to StableHLO: one file for each entry point and bucket.

    A single one is written to FILE. Of several each gets its name into FILE's: `llama.mlir` becomes
    `llama.decode.mlir`, `llama.prefill.s64.mlir`. Weights stay arguments; only their shapes are read.
    """
    if output.suffix not in _SUFFIXES:
        raise click.UsageError(f"-o {output}: the name must end in .mlir (text) or .mlirbc (portable bytecode)")
    _output.check_parent(output, "-o")
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        if entry is not None and entry not in program.entries:
            raise click.UsageError(f"{file.name} has no entry point {entry!r}; it has {', '.join(program.entries)}")
        with zoo.located(file):
            lowered = program.lower(platform, entry)
    written = []
    for name, variant in lowered.items():
        path = output if len(lowered) == 1 else output.with_name(f"{output.stem}.{name}{output.suffix}")
        data = variant.bytecode() if output.suffix == ".mlirbc" else variant.text().encode()
        with _output.replacing(path) as temporary:
            temporary.write_bytes(data)
        written.append({"entry": name, "platform": platform, "file": str(path), "bytes": len(data)})
    if as_json:
        _output.print_json({"model": file.name, "written": written})
        return
    for row in written:
        click.echo(f"{row['entry']}: {row['file']} ({_output.nbytes(int(str(row['bytes'])))})")
