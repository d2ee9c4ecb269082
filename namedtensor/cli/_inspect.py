"""`namedtensor inspect`: what a checkpoint or an archive holds, or what a model is made of and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor import zoo
from namedtensor.cli import _app, _output

if TYPE_CHECKING:
    from namedtensor.lowering import Lowered, Program
    from namedtensor.targets import Chip


@click.command(short_help="Show what a checkpoint or an archive holds, or what a model is made of and costs.")
@click.argument("target", metavar="CHECKPOINT|ARCHIVE|MODEL")
@_app.model_weights
@_app.assignments
@click.option("--entry", metavar="NAME", help="Of a model, only this entry point.")
@click.option(
    "--chip",
    "chips",
    multiple=True,
    metavar="NAME",
    help="Bound the model's speed on this chip: h100, mi300x, tpu-v5e, ... May be repeated. [default: cpu-native, "
    "this machine's processor, measured]",
)
@click.option("--all", "every", is_flag=True, help="Of a checkpoint, one row for each tensor; layers are not folded.")
@click.option("--verify", is_flag=True, help="Of an archive, read every file and compare its digest.")
@_app.as_json
@_app.debug
def command(
    target: str,
    weights: str | None,
    assignments: tuple[str, ...],
    entry: str | None,
    chips: tuple[str, ...],
    every: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Look into a checkpoint, an archive or a model. Reads headers only, never the weights.

    Of a CHECKPOINT (a file, a directory, hf://, https://, s3:// or gs://): its tensors with format, shape and bytes.

    Of an ARCHIVE (a .tar.zst that `namedtensor build` wrote): its files, their sizes, and for which targets they are.
    Nothing is unpacked.

    Of a MODEL (a name in the zoo, or a .py file): its modules with their named axes, parameters and bytes, and for
    each entry point the arithmetic, the fewest bytes that must move, and the roofline: the time below which no
    program can stay on a chip, and whether arithmetic or memory sets it.
    """
    if target.endswith(".tar.zst") and "://" not in target:
        _reject(target, "an archive", weights=weights, assignments=assignments, entry=entry, chips=chips, all=every)
        from namedtensor.cli import _packed

        _packed.show(Path(target), verify=verify, as_json=as_json)
        return
    if verify:
        raise click.UsageError("--verify is for archives")
    if not _is_model(target):
        _reject(target, "a checkpoint", weights=weights, assignments=assignments, entry=entry, chips=chips)
        _checkpoint(target, every=every, as_json=as_json)
        return
    from namedtensor import targets

    known = targets.names()
    for name in chips:
        if name not in known:
            raise click.UsageError(f"there is no chip {name!r}; there are {', '.join(known)}")
    if every:
        raise click.UsageError("--all is for checkpoints; of a model --json lists every weight")
    with _output.only_json(as_json):
        file = zoo.find(target)
        program = file.program(weights, file.parse(assignments))
        if entry is not None and entry not in program.entries:
            raise click.UsageError(f"{file.name} has no entry point {entry!r}; it has {', '.join(program.entries)}")
        with zoo.located(file):
            lowered = program.lower("cpu", entry)
        bounding = [targets.chip(name) for name in chips or (targets.NATIVE,)]
    if as_json:
        _output.print_json(_document(file, program, lowered, bounding))
    else:
        _model(file, program, lowered, bounding)


def _is_model(target: str) -> bool:
    if "://" in target:
        return False
    if target.endswith(".py") or target in zoo.names():
        return True
    path = Path(target)
    if path.is_dir():
        return (path / "model.py").is_file()
    # Neither a path nor a model: most likely a name with a typing error, about which the zoo has most to say.
    return not path.exists() and "/" not in target and not path.suffix


def _reject(target: str, kind: str, **given: Any) -> None:
    for name, value in given.items():
        if value:
            option = {"assignments": "--set", "chips": "--chip"}.get(name, f"--{name}")
            raise click.UsageError(
                f"{target} is {kind}; {option} is for {'checkpoints' if name == 'all' else 'models'}"
            )


def _checkpoint(target: str, *, every: bool, as_json: bool) -> None:
    from namedtensor.checkpoint import Checkpoint
    from namedtensor.cli import _stored

    checkpoint = Checkpoint.open(target)
    if as_json:
        _output.print_json(_stored.document(checkpoint))
    else:
        _stored.show(checkpoint, every=every)


def _model(file: zoo.ModelFile, program: Program, lowered: Lowered, chips: list[Chip]) -> None:
    from namedtensor.cli import _tree

    _output.print_table(_tree.model_tree(file.name, program))
    dtype = _tree.main_dtype(program)
    made = _output.table(
        "entry",
        "inputs",
        "FLOPs",
        "weights",
        "state",
        "in+out",
        *(chip.key for chip in chips),
        right="FLOPs weights state in+out",
    )
    for name, entry in lowered.items():
        cost = entry.cost()
        bounds = [_bound(cost, chip, dtype) for chip in chips]
        made.add_row(
            name,
            _inputs(entry.variant.inputs),
            _output.count(cost.flops),
            _output.nbytes(cost.weight_bytes),
            _output.nbytes(cost.state_bytes),
            _output.nbytes(cost.io_bytes),
            *(f"{_output.seconds(time)} {side}" for time, side in bounds),
        )
    click.echo()
    _output.print_table(made)
    click.echo()
    for chip in chips:
        rate = chip.rate(dtype)
        arithmetic = f"{_output.count(rate)}FLOP/s in {dtype}" if rate else f"no published rate for {dtype}"
        click.echo(f"{chip.key}: {chip.name}; {arithmetic}, {_output.nbytes(chip.memory_bandwidth)}/s ({chip.source})")
    click.echo("FLOPs of contractions and convolutions are exact, other arithmetic counts 1 an element. Bytes are the")
    click.echo("fewest that must move: weights, donated state, inputs and results once; of a looked-up table its rows.")


def _bound(cost: Any, chip: Chip, dtype: Any) -> tuple[float, str]:
    return cost.bound(chip.rate(dtype) or float("inf"), chip.memory_bandwidth)


def _inputs(inputs: Any) -> str:
    """Inputs in a few words: a tree of tensors, such as a cache, by their number."""
    from namedtensor._base import Base
    from namedtensor._errors import describe
    from namedtensor.tasks._call import leaves

    single = [f"{name} {describe(spec)}" for name, spec in inputs.items() if isinstance(spec, Base)]
    trees = [f"{name} of {len(leaves(tree))} tensors" for name, tree in inputs.items() if not isinstance(tree, Base)]
    more = f", {len(single) - 3} more" if len(single) > 3 else ""
    return ", ".join(trees + single[:3]) + more


def _document(file: zoo.ModelFile, program: Program, lowered: Lowered, chips: list[Chip]) -> dict[str, Any]:
    from namedtensor.cli import _tree
    from namedtensor.tasks._call import leaves

    whole, dtype = _tree.totals(program.model), _tree.main_dtype(program)
    entries = []
    for name, entry in lowered.items():
        cost = entry.cost()
        entries.append(
            {
                "name": name,
                "entry": entry.variant.entry,
                "inputs": {
                    key: {"axes": list(spec.axes), "shape": list(spec.sizes.values()), "dtype": str(spec.dtype)}
                    for key, spec in leaves(dict(entry.variant.inputs)).items()
                },
                "flops": cost.flops,
                "weight_bytes": cost.weight_bytes,
                "state_bytes": cost.state_bytes,
                "io_bytes": cost.io_bytes,
                "bytes": cost.bytes,
                "bounds": {
                    chip.key: dict(zip(("seconds", "limit"), _bound(cost, chip, dtype), strict=True)) for chip in chips
                },
            }
        )
    return {
        "model": file.name,
        "task": None if program.task is None else type(program.task).__name__.lower(),
        "parameters": whole.parameters,
        "bytes": whole.bytes,
        "weights": _tree.weights_json(program),
        "entries": entries,
        "chips": {
            chip.key: {
                "name": chip.name,
                "source": chip.source,
                "memory_bytes": chip.memory_bytes,
                "memory_bandwidth": chip.memory_bandwidth,
                "flops_per_second": chip.rate(dtype),
                "dtype": str(dtype),
            }
            for chip in chips
        },
    }
