"""`namedtensor run`: one command whose arguments depend on what the model's program does."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from namedtensor import zoo
from namedtensor.cli import _app, _call, _classify, _embed, _generate, _output
from namedtensor.cli._job import Job, Kind

KINDS = {kind.name: kind for kind in (_classify.KIND, _embed.KIND, _generate.KIND, _call.KIND)}


_TASKS = "namedtensor.tasks."


def kind_of(task: Any) -> Kind:
    """How the command line runs a task. Raises `UsageError` for one that it does not know."""
    name = "call" if task is None else task.to_json()["task"]
    if name not in KINDS:
        raise click.UsageError(f"a program whose task is {name} cannot be run from the command line")
    return KINDS[name]


class RunCommand(click.Command):
    """Takes the options of every kind of task, and refuses those that are not of the model's kind.

    Options are declared once for all models, so they may stand before or after MODEL; which of them apply is known
    only once the model was found.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        options = given[: given.index("--")] if "--" in given else given
        if "-h" in options or "--help" in options:
            ctx.meta["found"] = self._look(ctx, [a for a in given if a not in ("-h", "--help")])
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            model, kind = self._look(ctx, [a for a in given if a.partition("=")[0] != error.option_name])
            if model is None or kind is None:
                raise
            common = ", ".join(max(option.opts, key=len) for option in self._common())
            raise click.UsageError(
                f"there is no option {error.option_name}: {model.name} takes {kind.takes()}, "
                f"and as every model {common}",
                ctx,
            ) from None

    def _look(self, ctx: click.Context, args: list[str]) -> tuple[zoo.ModelFile | None, Kind | None]:
        """The model that the arguments name, and its kind, as far as both can be told; never fails."""
        with contextlib.suppress(Exception):
            values, _, _ = self.make_parser(ctx).parse_args(args)
            model = zoo.find(values.get("model") or "")
            with contextlib.suppress(Exception):
                program = model.program(values.get("weights"), model.parse(values.get("assignments") or ()))
                return model, kind_of(program.task)
            return model, _imported_kind(model)
        return None, None

    def _common(self) -> list[click.Option]:
        return [p for p in self.params if isinstance(p, click.Option) and _owner(p) is None]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        _, only = _found(ctx)
        arguments = "[ARGUMENTS]..." if only is None else only.arguments
        return ["MODEL", *[arguments] * bool(arguments), "[OPTIONS]"]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        model, _ = _found(ctx)
        about = (model.module.__doc__ or "").strip().partition("\n\n")[0] if model else ""
        if model and about:
            with formatter.section(model.name):
                formatter.write_text(about)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if _found(ctx)[1] is None:
            super().format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        model, only = _found(ctx)
        help_option = self.get_help_option(ctx)
        common = [option.get_help_record(ctx) for option in [*self._common(), *[help_option] * bool(help_option)]]  # type: ignore[union-attr]
        with formatter.section("Options"):
            formatter.write_dl([record for record in common if record is not None])
        for kind in KINDS.values() if only is None else (only,):
            with formatter.section(f"Models that {kind.name}" if only is None else f"This model's task: {kind.name}"):
                formatter.write_text(kind.summary)
                rows = [(kind.arguments, _ARGUMENTS.get(kind.name, ""))] if kind.arguments else []
                rows += [record for option in kind.options if (record := option.get_help_record(ctx)) is not None]
                if rows:
                    formatter.write_dl(rows)
        if model is not None and model.options:
            with formatter.section("Options of the model (--set)"):
                formatter.write_text("\n\n".join(option.describe() for option in model.options.values()))


def _found(ctx: click.Context) -> tuple[zoo.ModelFile | None, Kind | None]:
    return ctx.meta.get("found") or (None, None)


_ARGUMENTS = {"classify": "Image files.", "embed": "Texts, in quotes; or a dash."}


def _owner(parameter: click.Parameter) -> Kind | None:
    return next((kind for kind in KINDS.values() if parameter in kind.options), None)


def _imported_kind(model: zoo.ModelFile) -> Kind | None:
    """The kind of a model whose weights are not there, by the one task class that its file imports."""
    classes = [v for v in vars(model.module).values() if isinstance(v, type) and v.__module__.startswith(_TASKS)]
    found = {v.__name__.lower() for v in classes} & KINDS.keys()
    return KINDS[found.pop()] if len(found) == 1 else None


def _check(ctx: click.Context, model: str, kind: Kind) -> None:
    for parameter in ctx.command.params:
        owner = _owner(parameter)
        if owner is None or owner is kind or parameter.name is None:
            continue
        if ctx.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE:
            option = max(parameter.opts, key=len)
            raise click.UsageError(
                f"{model} does not take {option}: its task is {kind.name}, which takes {kind.takes()}"
            )


@click.command(
    cls=RunCommand,
    short_help="Run a model on images, texts, a prompt or tensors.",
    params=[option for kind in KINDS.values() for option in kind.options],
    epilog="`namedtensor run MODEL --help` shows what one model takes.",
)
@click.argument("model")
@click.argument("arguments", nargs=-1)
@_app.model_weights
@_app.assignments
@_app.as_json
@_app.debug
def command(
    model: str,
    arguments: tuple[str, ...],
    weights: str | None,
    assignments: tuple[str, ...],
    as_json: bool,
    **values: Any,
) -> None:
    """Run MODEL: a name in the zoo, or the path of a model file of your own.

    What else it takes depends on what the model does.
    """
    with _output.only_json(as_json):
        file = zoo.find(model)
        program = file.program(weights, file.parse(assignments))
        kind = kind_of(program.task)
        _check(click.get_current_context(), file.name, kind)
        job = Job(file, program, program.task, kind.name, arguments, values, as_json)
        kind.run(job)
    if job.document is not None:
        _output.print_json(job.document)
