"""Write docs/bazel-rules.md: the rules of bazel_rules/ with their attributes, as their own text describes them.

python -m scripts.docs_bazel          write the page
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bazel-rules.md"
RULES = ROOT / "bazel_rules"

INTRODUCTION = """\
# The Bazel rules

Everything that `@namedtensor//:defs.bzl` has, in the order in which it is used; [Bazel](bazel.md) shows it at work.
This page is written by `python -m scripts.docs_bazel` from the text of the rules themselves.

Every rule also has the attributes that all of Bazel's have: `name`, `tags`, `visibility` and so on.
"""

# By file, in the order of the page.
_FILES = ("model", "archive", "test", "image", "push", "load", "toolchain", "environment")


@dataclass(frozen=True)
class Attribute:
    """One attribute: its kind as Bazel calls it, whether it must be given, its default, and what it is for."""

    name: str
    kind: str
    mandatory: bool
    default: str
    doc: str


@dataclass(frozen=True)
class Rule:
    """One rule: its name and kind, what it does, and its attributes."""

    name: str
    kind: str
    doc: str
    attributes: tuple[Attribute, ...]


def rules() -> list[Rule]:
    """The rules, read from their files. Raises `ValueError` where a rule or an attribute has no `doc`."""
    found = []
    for name in _FILES:
        # Starlark is nearly Python; these files keep to what is both.
        tree = ast.parse((RULES / "private" / f"{name}.bzl").read_text(encoding="utf-8"))
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                called = ast.unparse(statement.value.func)
                if called in ("rule", "repository_rule"):
                    found.append(_rule(ast.unparse(statement.targets[0]), statement.value))
    return found


def settings() -> list[tuple[str, str]]:
    """Build settings of `platforms`, with their defaults as they are written on the command line."""
    tree = ast.parse((RULES / "platforms" / "BUILD.bazel").read_text(encoding="utf-8"))
    found = []
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("_setting"):
            values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            default = values["build_setting_default"]
            found.append((values["name"], ",".join(default) if isinstance(default, list) else str(default).lower()))
    return found


def page() -> str:
    """The text of docs/bazel-rules.md."""
    parts = [INTRODUCTION, *map(_section, rules()), _settings()]
    return "\n".join(parts)


def _rule(name: str, call: ast.Call) -> Rule:
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    kinds = [kind for kind in ("executable", "test") if kind in arguments]
    kind = "repository rule" if ast.unparse(call.func) == "repository_rule" else " ".join([*kinds[:1], "rule"])
    return Rule(name, kind, _text(name, arguments.get("doc")), tuple(_attributes(name, arguments["attrs"])))


def _attributes(rule: str, attrs: ast.expr) -> Iterator[Attribute]:
    if isinstance(attrs, ast.Dict):
        pairs = [(ast.literal_eval(key), value) for key, value in zip(attrs.keys, attrs.values, strict=True) if key]
    elif isinstance(attrs, ast.Call):
        pairs = [(str(keyword.arg), keyword.value) for keyword in attrs.keywords]
    else:
        raise ValueError(f"{rule}: its attributes are written in a way that is not read here")
    for name, value in pairs:
        if not isinstance(value, ast.Call):
            raise ValueError(f"{rule}.{name} is no attribute that is read here")
        fields = {keyword.arg: keyword.value for keyword in value.keywords}
        yield Attribute(
            name=name,
            kind=ast.unparse(value.func).removeprefix("attr."),
            mandatory="mandatory" in fields,
            default=_default(fields.get("default")),
            doc=_text(f"{rule}.{name}", fields.get("doc")),
        )


def _default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    found = ast.literal_eval(value)
    return ", ".join(found) if isinstance(found, list) else str(found)


def _text(what: str, value: ast.expr | None) -> str:
    """A text that may be several, added up."""
    if isinstance(value, ast.BinOp):
        return _text(what, value.left) + _text(what, value.right)
    if not isinstance(value, ast.Constant) or not str(value.value).strip():
        raise ValueError(f"{what} has no doc")
    return str(value.value)


def _section(rule: Rule) -> str:
    lines = [f"## {rule.name}", "", f"*{rule.kind}*", "", rule.doc, ""]
    lines += ["| attribute | type | default | |", "| --- | --- | --- | --- |"]
    for one in rule.attributes:
        default = "required" if one.mandatory else f"`{one.default}`" if one.default else ""
        lines.append(f"| `{one.name}` | {one.kind} | {default} | {' '.join(one.doc.split())} |")
    return "\n".join([*lines, ""])


def _settings() -> str:
    lines = ["## Settings", "", "| setting | default |", "| --- | --- |"]
    lines += [f"| `--@namedtensor//platforms:{name}` | `{default}` |" for name, default in settings()]
    lines.append("| `--@namedtensor//:toolchain` | `@namedtensor_environment//:toolchain` |")
    return "\n".join([*lines, ""])


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
