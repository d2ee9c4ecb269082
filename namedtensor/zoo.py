"""Model files: those of the zoo by name, a user's own by path, both loaded and treated the same.

A model file defines `program(ckpt, *, option=default, ...) -> nt.Program` and, where it has weights of its own,
`WEIGHTS`: their source, relative to the file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin

from namedtensor._errors import CheckpointError, ModelError, NamedTensorError, closest

if TYPE_CHECKING:
    from namedtensor.lowering import Program

_ZOO = "namedtensor.models"
_PRIVATE = "_namedtensor_model_"


class ChoiceError(ModelError):
    """A model, or an option of one, was named that does not exist, or got a value that it cannot have."""


@dataclass(frozen=True)
class Option:
    """One keyword of a model's `program`."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def describe(self) -> str:
        """`dtype=None (str or None)`, as help and errors show it."""
        default = ",".join(map(str, self.default)) if isinstance(self.default, tuple) else self.default
        shown = self.name if self.required else f"{self.name}={default}"
        return f"{shown} ({_kind(self.annotation)})" if self.annotation is not None else shown

    def parse(self, text: str) -> Any:
        """The value that a person wrote. Raises `ChoiceError` where it is none that the option can have."""
        try:
            return _parse(text, self.annotation)
        except ValueError:
            raise ChoiceError(f"option {self.name}: {text!r} is not {_kind(self.annotation)}") from None


@dataclass(frozen=True)
class ModelFile:
    """A model file that was found and executed; nothing of a checkpoint was opened yet."""

    name: str
    path: Path
    module: types.ModuleType

    @property
    def weights(self) -> str | None:
        """Source of the weights that the file names itself, or None."""
        source = getattr(self.module, "WEIGHTS", None)
        if source is None:
            return None
        if not isinstance(source, (str, Path)):
            raise ModelError(f"{_shown(self.path)}: WEIGHTS must be a path or an address, not {source!r}")
        text = str(source)
        return text if "://" in text else str(self.path.parent / text)

    @property
    def options(self) -> dict[str, Option]:
        """Options of `program`, by name."""
        function = self._function
        try:
            signature = inspect.signature(function, eval_str=True)
        except Exception:  # an annotation that cannot be evaluated leaves its option untyped
            signature = inspect.signature(function)
        found = {}
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                annotation = parameter.annotation
                if annotation is parameter.empty or isinstance(annotation, str):
                    annotation = None if parameter.default in (None, parameter.empty) else type(parameter.default)
                found[parameter.name] = Option(parameter.name, annotation, parameter.default)
        return found

    def parse(self, assignments: Sequence[str]) -> dict[str, Any]:
        """Values for options from `option=value` texts.

        Raises `ChoiceError` where an option does not exist, is given twice, or cannot have the value.
        """
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            name = name.strip().replace("-", "_")
            if not equals or not name:
                raise ChoiceError(f"{assignment!r} sets nothing; write option=value")
            if name not in self.options:
                raise ChoiceError(self._no_option(name))
            if name in values:
                raise ChoiceError(f"option {name} is set twice")
            values[name] = self.options[name].parse(text)
        return values

    def program(self, source: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Program:
        """The program over the weights of `source`, or of the file's own `WEIGHTS`. Reads headers only.

        Raises `ChoiceError` where an option does not exist, `CheckpointError` where there are no weights or they do
        not fit, `ModelError` with the file and line where the model itself fails.
        """
        from namedtensor.checkpoint import Checkpoint
        from namedtensor.lowering import Program

        options = dict(options or {})
        for name in options:
            if name not in self.options:
                raise ChoiceError(self._no_option(name))
        for option in self.options.values():
            if option.required and option.name not in options:
                raise ChoiceError(f"{self.name} needs the option {option.describe()}")
        source = self.weights if source is None else source
        if source is None:
            raise CheckpointError(f"{self.name} comes without weights; say where they are (--weights SOURCE)")
        checkpoint = Checkpoint.open(source)
        with located(self):
            program = self._function(checkpoint, **options)
        if not isinstance(program, Program):
            raise ModelError(f"{_shown(self.path)}: program(ckpt) must return an nt.Program, not {program!r}")
        if self._function.__module__ != self.module.__name__:
            # A file that takes another one's program over gives it its own name.
            program.name = self.name
        return program

    @property
    def _function(self) -> Callable[..., Any]:
        function = getattr(self.module, "program", None)
        if not callable(function):
            raise ModelError(
                f"{_shown(self.path)}: a model file defines `program(ckpt) -> nt.Program`, and this one does not"
            )
        return cast(Callable[..., Any], function)

    def _no_option(self, name: str) -> str:
        every = ", ".join(option.describe() for option in self.options.values())
        return f"{self.name} has no option {name!r}; it has {every or 'none'}"


def names() -> list[str]:
    """Names of the models in the zoo, sorted."""
    return sorted(path.parent.name for root in _zoo_paths() for path in root.glob("*/model.py"))


def find(model: str | Path) -> ModelFile:
    """The model of that name in the zoo, or the model file at that path; its code runs.

    A name has no separator and no `.py`; write `./digits` for a directory of that name which holds a `model.py`.
    Raises `ChoiceError` where there is none, `ModelError` with the file and line where its code fails.
    """
    text = str(model)
    if os.sep not in text and not text.endswith(".py"):
        if text in names():
            return _load_zoo(text)
        known = names()
        guess = closest(text, known)
        hint = f"did you mean {guess!r}?" if guess else f"the zoo has {', '.join(known)}"
        raise ChoiceError(f"there is no model {text!r} in the zoo: {hint} A file of your own is given by its path.")
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "model.py").is_file():
            raise ChoiceError(f"the directory {text} holds no model.py")
        path = path / "model.py"
    if not path.is_file():
        raise ChoiceError(f"there is no model file {text}")
    if path.suffix != ".py":
        raise ChoiceError(f"{text} is not a model: a model is a .py file, or a name in the zoo ({', '.join(names())})")
    real = path.resolve()
    for root in _zoo_paths():
        if real.name == "model.py" and real.parent.parent == root.resolve():
            return _load_zoo(real.parent.name)
    # A link stays one: what lies beside it, and not beside what it points to, is what the file may import. By such
    # links build systems show a model the files that it declares, and no others.
    return _load_file(Path(os.path.abspath(path)))


class located:
    """Turns whatever a model's code raises into a `ModelError` that names the line; the project's errors pass."""

    def __init__(self, model: ModelFile | Path) -> None:
        self._directory = (model if isinstance(model, Path) else model.path).parent

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or isinstance(error, (NamedTensorError, KeyboardInterrupt, GeneratorExit)):
            return
        if not isinstance(error, (Exception, SystemExit)):
            return
        where = self._where(error)
        if where is not None:
            raise ModelError(f"{where}: {summary(error)}") from error

    def _where(self, error: BaseException) -> str | None:
        """`file:line` in the model's directory, the innermost; None where the model has no part in the error."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{_shown(Path(error.filename))}:{error.lineno}"
        where, trace = None, error.__traceback__
        while trace is not None:
            path = Path(trace.tb_frame.f_code.co_filename)
            if path.parent == self._directory:
                where = f"{_shown(path)}:{trace.tb_lineno}"
            trace = trace.tb_next
        return where


def summary(error: BaseException) -> str:
    """`KeyError: 'width'`: an exception in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _zoo_paths() -> list[Path]:
    package = importlib.import_module(_ZOO)
    return [Path(path) for path in package.__path__]


def _load_zoo(name: str) -> ModelFile:
    path = next(root / name / "model.py" for root in _zoo_paths() if (root / name / "model.py").is_file())
    with located(path):
        module = importlib.import_module(f"{_ZOO}.{name}.model")
    return ModelFile(name, path, module)


def _load_file(path: Path) -> ModelFile:
    """Execute a user's file anew, inside a private package, so that its name can hide nothing.

    Its directory is that package's path: `from .config import Config` finds the file beside it, and where the
    directory is a package itself, `from ..common import x` the one above. Plain `import config` works as it does for
    a script, except that it cannot hide an installed package.
    """
    root, parents = path.parent, list[str]()
    while (root / "__init__.py").is_file():
        parents.insert(0, root.name)
        root = root.parent
    private = _PRIVATE + hashlib.sha256(str(path).encode()).hexdigest()[:12]
    for name in [n for n in sys.modules if n == private or n.startswith(private + ".")]:
        del sys.modules[name]
    package = types.ModuleType(private)
    package.__path__ = [str(root)]
    sys.modules[private] = package
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()
    name = ".".join([private, *parents, path.stem.replace(".", "_")])
    with located(path):
        if parents:
            importlib.import_module(".".join([private, *parents]))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return ModelFile(path.parent.name if path.stem == "model" else path.stem, path, module)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _parse(text: str, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        kinds = get_args(annotation)
        if type(None) in kinds and text.lower() in ("none", "null", ""):
            return None
        for kind in (k for k in kinds if k is not type(None)):
            try:
                return _parse(text, kind)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        for choice in get_args(annotation):
            if str(choice) == text:
                return choice
        raise ValueError
    if origin is tuple or annotation is tuple:
        kinds = get_args(annotation) or (str, ...)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if len(kinds) == 2 and kinds[1] is ...:
            return tuple(_parse(part, kinds[0]) for part in parts)
        if len(parts) != len(kinds):
            raise ValueError
        return tuple(_parse(part, kind) for part, kind in zip(parts, kinds, strict=True))
    if annotation is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError
    if annotation in (int, float):
        return annotation(text)
    if annotation is Path:
        return Path(text)
    return text


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if kind is type(None) else _kind(kind) for kind in get_args(annotation))
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if origin is tuple:
        return "a comma-separated list"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return words.get(annotation, "text")
