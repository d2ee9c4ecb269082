"""`run` for programs without a task: tensors in, tensors out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namedtensor._errors import InputError, closest, describe
from namedtensor.cli import _output
from namedtensor.cli._job import Job, Kind

if TYPE_CHECKING:
    from namedtensor._tensor import Tensor


def _run(job: Job) -> None:
    from namedtensor.tasks._call import Call

    if job.arguments:
        raise click.UsageError(
            f"{job.model.name} takes tensors, not arguments: write --input NAME={job.arguments[0]} for what it is"
        )
    task = job.task or Call()
    entry = job.values["entry"]
    if entry is not None and entry not in job.program.entries:
        guess = closest(entry, job.program.entries)
        hint = f"did you mean {guess!r}?" if guess else f"it has {', '.join(job.program.entries)}"
        raise click.UsageError(f"{job.model.name} has no entry point {entry!r}: {hint}")
    if entry is None and task.entry is None and len(job.program.entries) > 1:
        raise click.UsageError(f"{job.model.name} has several entry points: --entry {' or '.join(job.program.entries)}")
    output = job.values["output"]
    if output is not None and output.suffix in (".npz", ".safetensors"):
        _output.check_parent(output, "--output")
    elif output is not None and not output.is_dir():
        raise click.UsageError(
            f"--output {output}: neither a directory that exists, nor a .npz or .safetensors file to write"
        )
    entry = task.choose(job.program, entry)
    inputs = _inputs(job, entry)

    from namedtensor.cli import _arrays

    variant, _ = task.prepare(job.program, inputs, entry=entry)
    session = job.start(variant.name)
    with job.working("run"):
        result = task.run(session, inputs, entry=entry)
        arrays = result.arrays()
    written = [] if output is None else _arrays.write(output, arrays)
    if job.as_json:
        job.report(result.to_json())
        return
    for name, tensor in result.tensors.items():
        click.echo(f"{name} {describe(tensor)}")
        if output is None:
            click.echo(_values(arrays[name]))
    for path in written:
        click.echo(f"wrote {path} ({_output.nbytes(path.stat().st_size)})")


def _values(array: Any) -> str:
    import numpy as np

    shown = np.array2string(array, threshold=50, precision=6, max_line_width=100, separator=", ")
    return "\n".join("  " + line for line in shown.splitlines())


def _inputs(job: Job, entry: str) -> dict[str, Any]:
    """Values of all inputs that were given, by name."""
    from namedtensor.tasks._call import leaves

    specs = leaves(job.program.entries[entry].inputs)
    buckets = job.program.entries[entry].buckets
    found: dict[str, Any] = {}
    for text in job.values["inputs"]:
        name, equals, value = text.partition("=")
        given = {name: _value(name, value, specs, buckets)} if equals and name in specs else _all(text, specs, buckets)
        for key in given:
            if key in found:
                raise click.UsageError(f"input {key!r} is given twice")
        found.update(given)
    missing = [name for name in specs if name not in found]
    if missing:
        raise click.UsageError(f"{entry} needs --input {missing[0]}=..., {describe(specs[missing[0]])}")
    return found


def _value(name: str, text: str, specs: dict[str, Tensor], buckets: Any) -> Any:
    from namedtensor.cli import _arrays

    if not text.endswith(_arrays.READABLE):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise click.UsageError(
                f"--input {name}={text}: give a file ({', '.join(_arrays.READABLE)}), a number or a list in brackets"
            ) from None
    arrays = _arrays.stored(Path(text))
    if len(arrays) > 1 and name not in arrays:
        raise InputError(f"{text}: holds {', '.join(list(arrays)[:5])}, and nothing called {name!r}")
    if not arrays:
        raise InputError(f"{text}: holds no array")
    array = arrays[name] if name in arrays else next(iter(arrays.values()))
    return _read(f"{text}", name, array, specs[name], buckets)


def _all(text: str, specs: dict[str, Tensor], buckets: Any) -> dict[str, Any]:
    """Inputs from a file that holds them by name."""
    from namedtensor.cli import _arrays

    path = Path(text)
    if not path.is_file():
        name = text.partition("=")[0]
        guess = closest(name, specs)
        hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(specs)}"
        raise click.UsageError(f"--input {text}: there is no input {name!r} and no such file: {hint}")
    arrays = _arrays.stored(path)
    for name in arrays:
        if name not in specs:
            raise InputError(f"{path}: holds {name or 'one array'!r}; the inputs are {', '.join(specs)}")
    return {name: _read(text, name, array, specs[name], buckets) for name, array in arrays.items()}


def _read(source: str, name: str, array: Any, spec: Tensor, buckets: Any) -> Any:
    """The array, if its shape can be right: a file that says it holds a terabyte is refused, not read."""
    sizes = [buckets.get(axis, (size,)) for axis, size in spec.sizes.items()]
    if len(array.shape) != len(sizes) or any(n not in choice for n, choice in zip(array.shape, sizes, strict=True)):
        wanted = ", ".join(
            f"{axis}={' or '.join(map(str, choice))}" for axis, choice in zip(spec.axes, sizes, strict=True)
        )
        raise InputError(f"{source}: input {name!r} has shape {tuple(array.shape)}, not ({wanted})")
    return array.read()


KIND = Kind(
    name="call",
    arguments="",
    summary="Runs an entry point on tensors.",
    options=[
        click.Option(["--entry"], metavar="NAME", help="The entry point to run, where there are several."),
        click.Option(
            ["--input", "inputs"],
            multiple=True,
            metavar="NAME=VALUE",
            help="An input: a number, a list in brackets, or a file (.npy, .npz, .safetensors). A .npz or "
            ".safetensors file alone gives every input that it holds by name. May be repeated.",
        ),
        click.Option(
            ["--output"],
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Write the outputs to a .npz or .safetensors file, or as .npy files into a directory.",
        ),
    ],
    run=_run,
)
