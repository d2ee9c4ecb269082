"""`run` for programs that continue a prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from namedtensor._errors import InputError
from namedtensor.cli import _output
from namedtensor.cli._job import Job, Kind

_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def _run(job: Job) -> None:
    values = job.values
    prompt = _prompt(job)
    settings = {name: values[name] for name in _SETTINGS if values[name] is not None}
    try:
        job.task.sampling.replace(**settings)
    except InputError as error:
        raise click.UsageError(f"--{error.headline.replace('_', '-')}") from error
    logits: Path | None = values["logits"]
    if logits is not None:
        _output.check_parent(logits, "--logits")
    if values["max_tokens"] == 0 and logits is None:
        raise click.UsageError("--max-tokens 0 leaves nothing to do without --logits")
    ids = job.task.ids(**prompt)

    needed = ["score"] if logits is not None else []
    if values["max_tokens"] > 0:
        needed += [*job.variants("prefill", s=job.pieces("prefill", "s", len(ids))), "sample"]
    if values["max_tokens"] > 1:
        needed.append("decode")
    session = job.start(*needed)
    written: dict[str, Any] = {}
    if logits is not None:
        from namedtensor.cli import _arrays

        with job.working("score"):
            scores = job.task.score(session, ids)
        _arrays.write_npy(logits, scores)
        written = {"logits": {"file": str(logits), "shape": list(scores.shape), "dtype": str(scores.dtype)}}
    if values["max_tokens"] == 0:
        if job.as_json:
            job.report({"prompt_ids": ids, **written})
        else:
            click.echo(f"wrote {logits}: {' × '.join(map(str, scores.shape))} float32")
        return

    printer = _Printer(quiet=job.as_json)
    with job.working("run"):
        result = job.task.run(
            session,
            **prompt,
            max_tokens=values["max_tokens"],
            seed=values["seed"],
            stop=values["stop"],
            on_text=printer,
            **settings,
        )
    if job.as_json:
        job.report({**result.to_json(), **written})
        return
    if result.text is None:
        click.echo(",".join(map(str, result.ids)))
    else:
        printer.end()
    if sys.stderr.isatty():
        rate = result.tokens_per_second
        speed = "" if rate is None else f", {rate:.1f} tokens/s"
        first = _output.seconds(result.first_token_seconds)
        click.secho(
            f"{len(result.prompt_ids)} + {len(result.ids)} tokens, the first after {first}{speed}; "
            f"ended by {result.finish_reason}",
            err=True,
            dim=True,
        )


def _prompt(job: Job) -> dict[str, Any]:
    """The one prompt that was given, as the task takes it."""
    values = job.values
    if job.arguments:
        raise click.UsageError(f"{job.model.name} takes its prompt as an option: --prompt {_quoted(job.arguments[0])}")
    text, ids, chat = values["prompt"], values["prompt_ids"], values["chat"] or values["system"] is not None
    if text is not None and ids is not None:
        raise click.UsageError("give --prompt or --prompt-ids, not both")
    if text is None and ids is None:
        raise click.UsageError(f"{job.model.name} continues a prompt: give --prompt TEXT or --prompt-ids 5,17,3")
    if ids is not None:
        if chat:
            raise click.UsageError("--chat and --system go with --prompt: ids are taken as they are")
        return {"prompt_ids": _ids(ids)}
    if text == "-":
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not valid UTF-8 ({error.reason} at byte {error.start})") from None
    for option, value in (("--prompt", text), ("--system", values["system"] or "")):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{option}: the text is not valid UTF-8") from None
    if not chat:
        return {"prompt": text}
    system = [] if values["system"] is None else [{"role": "system", "content": values["system"]}]
    return {"messages": [*system, {"role": "user", "content": text}]}


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise click.UsageError(f"--prompt-ids {text}: write whole numbers with commas between them: 5,17,3") from None


def _quoted(text: str) -> str:
    return '"' + (text if len(text) <= 30 else text[:27] + "...") + '"'


class _Printer:
    """Text to stdout as it comes. On a terminal, control characters that a model wrote are shown, not obeyed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._clean = sys.stdout.isatty()
        self._last = "\n"

    def __call__(self, piece: str) -> None:
        if self._quiet:
            return
        if self._clean:
            piece = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
        self._last = piece[-1:] or self._last

    def end(self) -> None:
        """End the last line where the text does not."""
        if self._last != "\n":
            sys.stdout.write("\n")


def _number(name: str, help: str) -> click.Option:
    return click.Option([f"--{name}"], type=float, metavar="X", help=help)


KIND = Kind(
    name="generate",
    arguments="",
    summary="Continues a prompt. Sampling is as the checkpoint's generation_config.json says, unless set here.",
    options=[
        click.Option(["--prompt"], metavar="TEXT", help="The text to continue; - reads stdin."),
        click.Option(["--chat"], is_flag=True, help="Put the prompt into the model's chat template, as the user's."),
        click.Option(["--system"], metavar="TEXT", help="What the chat's system message says. Implies --chat."),
        click.Option(["--prompt-ids"], metavar="IDS", help="The prompt as token ids: 5,17,3. Needs no tokenizer."),
        click.Option(
            ["--max-tokens"],
            type=click.IntRange(min=0),
            default=256,
            show_default=True,
            metavar="N",
            help="The longest answer.",
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(0, 2**32 - 1),
            default=0,
            show_default=True,
            metavar="N",
            help="One seed gives one answer.",
        ),
        _number("temperature", "0 takes the likeliest token, 1 draws with the model's own probabilities."),
        click.Option(
            ["--top-k"], type=click.IntRange(min=0), metavar="N", help="Draw from the N likeliest tokens; 0: all."
        ),
        _number("top-p", "Draw from the likeliest tokens that have this probability together."),
        _number("min-p", "Draw from tokens at least this many times as likely as the likeliest."),
        _number("repetition-penalty", "Above 1, tokens that occurred become less likely."),
        click.Option(["--stop"], multiple=True, metavar="TEXT", help="End before this text. May be repeated."),
        click.Option(
            ["--logits"],
            type=click.Path(path_type=Path),
            metavar="FILE.npy",
            help="Also write the prompt's logits, a row for each position. With --max-tokens 0, do only that.",
        ),
    ],
    run=_run,
)
