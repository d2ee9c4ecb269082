"""Renders one chat template and exits: a program of its own, since templates come with checkpoints and are not trusted.

Reads {"template", "values"} as JSON from standard input and writes {"text"} or {"problem"} to standard output. The
template runs in jinja2's immutable sandbox. Should it get out of that, it finds a process that can open no file and no
socket, write nothing but its answer, and start nothing; should it only be large, limits of memory and time end it.
"""

import contextlib
import datetime
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

MEMORY = 512 << 20  # bytes of address space
SECONDS = 5  # of computing
LENGTH = 16 << 20  # characters of the answer


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        # Not every system has every limit, or lets it be lowered.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}`, by which some templates mark what the assistant says: shown as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Sandbox(ImmutableSandboxedEnvironment):
        """jinja2's sandbox, which shows what it keeps back as nothing, made to say so."""

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            raise SecurityError(f"{attribute!r} of {type(obj).__name__} is not for templates")

    class PlainNamespace(Namespace):
        """A namespace without the underscored names through which Python's own objects are reached."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for name in dict(*args, **kwargs):
                _plain(name)

        def __setitem__(self, name: str, value: Any) -> None:
            _plain(name)
            super().__setitem__(name, value)

    def _plain(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}")

    def raise_exception(message: Any) -> None:
        raise TemplateError(str(message))

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, **options: Any) -> str:
        # jinja's own would escape what HTML gives a meaning to.
        known = {key: options[key] for key in ("separators", "sort_keys") if key in options}
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **known)

    def strftime_now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    made: dict[str, Callable[..., Any]] = {
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": PlainNamespace,
        "raise_exception": raise_exception,
        "range": safe_range,
        "strftime_now": strftime_now,
    }
    environment.globals.clear()
    environment.globals.update(made)
    return environment


def _warm_up(environment: Any) -> None:
    """Have everything imported that is imported late, while files can still be opened."""
    import pprint  # noqa: F401
    import textwrap  # noqa: F401

    with contextlib.suppress(Exception):
        environment.from_string(r"{{ '\u00e9\n' ~ 1.5 ~ strftime_now('%d %b %Y') ~ raise_exception('') }}").render()


def _answer(request: Any) -> dict[str, str]:
    from jinja2.exceptions import TemplateError

    try:
        environment = _environment()
        _warm_up(environment)
        _limit()
        text = environment.from_string(request["template"]).render(request["values"])
        return {"text": text} if len(text) <= LENGTH else {"problem": f"it makes a text of {len(text)} characters"}
    except TemplateError as error:
        return {"problem": error.message or type(error).__name__}
    except MemoryError:
        return {"problem": f"it takes more than {MEMORY >> 20} MB of memory"}
    except RecursionError:
        return {"problem": "it calls itself without end"}
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    # Where jinja2 was found by whoever started this.
    sys.path.extend(sys.argv[1:])
    print(json.dumps(_answer(json.load(sys.stdin))))
