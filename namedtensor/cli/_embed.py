"""`run` for programs that turn texts into vectors."""

from __future__ import annotations

import collections
import sys
from pathlib import Path
from typing import Any

import click

from namedtensor._errors import InputError
from namedtensor.cli import _output
from namedtensor.cli._job import Job, Kind

_BAR = 16


def _run(job: Job) -> None:
    texts = _texts(job)
    output: Path | None = job.values["vectors"]
    if output is not None:
        _output.check_parent(output, "--vectors")
    session = job.start(*_needed(job, texts))
    with job.working("run"):
        result = job.task.run(session, texts)
    if output is not None:
        from namedtensor.cli import _arrays

        _arrays.write_npy(output, result.vectors)
    for text, tokens, cut in zip(result.texts, result.tokens, result.truncated, strict=True):
        if cut:
            click.echo(f"namedtensor: warning: only the first {tokens} tokens were read of {_short(text)!r}", err=True)
    if job.as_json:
        job.report(result.to_json())
    elif output is not None:
        click.echo(f"wrote {output}: {' × '.join(map(str, result.vectors.shape))} float32")
    elif len(result.texts) == 1:
        click.echo(str(result))
    else:
        _print_ranking(result)


def _needed(job: Job, texts: list[str]) -> list[str]:
    """The variants for texts of these lengths, which are run together with others of about their length."""
    entry = job.task.entry
    lengths = job.program.entries[entry].buckets.get("s", ())
    counts = collections.Counter(
        min((size for size in lengths if size >= len(encoding)), default=0) for encoding in job.task.encode(texts)
    )
    return [name for s, n in counts.items() for name in job.variants(entry, s={s}, b=job.pieces(entry, "b", n))]


def _texts(job: Job) -> list[str]:
    if not job.arguments:
        raise click.UsageError(
            f"{job.model.name} embeds texts: give one for its vector, or several to rank the others by their "
            "likeness to the first; - reads one from each line of stdin"
        )
    texts: list[str] = []
    for argument in job.arguments:
        if argument != "-":
            texts.append(argument)
            continue
        try:
            texts += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not valid UTF-8 ({error.reason} at byte {error.start})") from None
    if not texts:
        raise InputError("stdin holds no text")
    return texts


def _print_ranking(result: Any) -> None:
    click.echo(result.texts[0])
    for match in result.ranking():
        bar = "█" * round(max(match.similarity, 0) * _BAR)
        click.echo(f"  {match.similarity:7.4f}  {bar:<{_BAR}}  {match.text}")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


KIND = Kind(
    name="embed",
    arguments="TEXT...",
    summary="Turns texts into vectors. One text: its vector is printed. Several: the others are ranked by the cosine "
    "of their angle to the first. A dash reads one text from each line of stdin.",
    options=[
        click.Option(
            ["--vectors"],
            type=click.Path(path_type=Path),
            metavar="FILE.npy",
            help="Write the vectors to FILE.npy, a row for each text.",
        ),
    ],
    run=_run,
)
