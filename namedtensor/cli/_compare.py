"""`namedtensor compare`: recorded activations against a reference's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from namedtensor._errors import InputError
from namedtensor.cli import _app, _output


def _write_dumper(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None or context.resilient_parsing:
        return
    from namedtensor.porting import torch_dump

    _output.check_parent(path, "--write-dumper")
    with _output.replacing(path) as temporary:
        temporary.write_bytes(Path(torch_dump.__file__).read_bytes())
    click.echo(f"{path}: copy it to where PyTorch is, and call dump_torch(model.eval(), FILE, *inputs)")
    context.exit()


@click.command(short_help="Compare recorded activations with those of a reference.")
@click.argument("ours")
@click.argument("reference")
@click.option(
    "--map",
    "mapping",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="The reference's name for each of ours, under [names]; without it the pairs are guessed.",
)
@click.option("--rtol", type=float, metavar="NUMBER", help="Relative tolerance. [default: 1e-4; bf16 3e-2, f16 5e-3]")
@click.option("--atol", type=float, metavar="NUMBER", default=1e-7, show_default=True, help="Absolute tolerance.")
@click.option("--all", "every", is_flag=True, help="Show every row, not only those around the first difference.")
@click.option(
    "--write-dumper",
    type=click.Path(path_type=Path),
    metavar="FILE.py",
    is_eager=True,
    expose_value=False,
    callback=_write_dumper,
    help="Write the file that records a PyTorch model's activations, and stop.",
)
@_app.as_json
@_app.debug
@click.pass_context
def command(
    context: click.Context,
    ours: str,
    reference: str,
    mapping: Path | None,
    rtol: float | None,
    atol: float,
    every: bool,
    as_json: bool,
) -> None:
    """Compare the activations in OURS with those in REFERENCE, and name the first that differs.

    OURS is what nt.activations(...).save(FILE) wrote. REFERENCE is a file of arrays by name: what dump_torch wrote, any
    other safetensors file, or .npz. The exit code is 1 where they differ.
    """
    from namedtensor.porting import compare

    found = compare(ours, reference, None if mapping is None else _names(mapping), rtol=rtol, atol=atol)
    if as_json:
        _output.print_json(found.to_json())
    else:
        click.echo(found.report(every=every))
    context.exit(0 if found.agrees else 1)


def _names(path: Path) -> dict[str, Any]:
    """The table `[names]`: our name to the reference's, or to `[name, order of axes]`."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None
    names = content.get("names")
    if not isinstance(names, dict) or set(content) != {"names"}:
        raise InputError(f'{path}: it needs one table, [names], of lines such as "layers.*.mlp" = "model.layers.*.mlp"')
    return names
