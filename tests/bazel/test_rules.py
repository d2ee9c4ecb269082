"""The rules as text: documented, formatted, and told to both of Bazel's ways of finding them."""

from __future__ import annotations

import ast
import re
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

import namedtensor
from scripts import docs_bazel

ROOT = Path(__file__).parents[2]
RULES = ROOT / "bazel_rules"


def test_the_page_of_rules_is_current() -> None:
    assert docs_bazel.PAGE.read_text(encoding="utf-8") == docs_bazel.page(), "run python -m scripts.docs_bazel"


def test_every_public_rule_is_on_the_page() -> None:
    tree = ast.parse((RULES / "defs.bzl").read_text())
    public = {target.id for one in tree.body if isinstance(one, ast.Assign) for target in one.targets}  # type: ignore[attr-defined]
    documented = {rule.name for rule in docs_bazel.rules()}
    assert {name for name in public if name.startswith("nt_")} == documented - {"nt_environment"}


def test_every_file_is_formatted_and_without_findings() -> None:
    done = subprocess.run([ROOT / "scripts" / "check-bazel", "lint"], capture_output=True, text=True, check=False)
    if "not checked with buildifier" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_pages_use_rules_and_attributes_that_exist() -> None:
    attributes = {rule.name: {one.name for one in rule.attributes} for rule in docs_bazel.rules()}
    # In a module the environment is a tag of the extension.
    attributes["namedtensor.environment"] = attributes["nt_environment"]
    used = set()
    for block in re.findall(
        r"^```starlark\n(.*?)^```$", (ROOT / "docs" / "bazel.md").read_text(), re.DOTALL | re.MULTILINE
    ):
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and (name := ast.unparse(call.func)) in attributes:
                used.add(name)
                assert {word.arg for word in call.keywords} <= attributes[name] | {"name"}, name
    assert used == set(attributes) - {"nt_toolchain"}


# Modules: Bazel 4 has none, so what they say is run here as the Python that it also is


class Module:
    """Runs a MODULE.bazel, and keeps what it says."""

    def __init__(self, path: Path) -> None:
        self.name, self.version = "", ""
        self.needs: dict[str, str] = {}
        self.environments: list[dict[str, Any]] = []
        self.extensions: list[tuple[str, str]] = []
        self.repositories: list[str] = []
        self.overrides: dict[str, str] = {}
        exec(compile(path.read_text(), path, "exec"), self._functions())

    def _functions(self) -> dict[str, Any]:
        def module(name: str, version: str = "", **_: Any) -> None:
            self.name, self.version = name, version

        def use_extension(file: str, name: str) -> types.SimpleNamespace:
            self.extensions.append((file, name))
            return types.SimpleNamespace(environment=lambda **fields: self.environments.append(fields))

        return {
            "module": module,
            "bazel_dep": lambda name, version: self.needs.update({name: version}),
            "local_path_override": lambda module_name, path: self.overrides.update({module_name: path}),
            "use_extension": use_extension,
            "use_repo": lambda _, *names: self.repositories.extend(names),
        }


def made(*modules: tuple[bool, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The repositories that the extension makes for modules: whether each is the root, and its tags."""
    repositories: list[dict[str, Any]] = []
    text = "\n".join(
        line for line in (RULES / "extensions.bzl").read_text().splitlines() if not line.startswith("load(")
    )

    def refuse(problem: str) -> None:
        raise ValueError(problem)

    functions: dict[str, Any] = {
        "attr": types.SimpleNamespace(string=dict, string_list=dict),
        "fail": refuse,
        "module_extension": lambda implementation, **_: implementation,
        "nt_environment": lambda **fields: repositories.append(fields),
        "tag_class": dict,
    }
    exec(compile(text, "extensions.bzl", "exec"), functions)
    context = types.SimpleNamespace(
        modules=[
            types.SimpleNamespace(
                is_root=root,
                tags=types.SimpleNamespace(
                    environment=[types.SimpleNamespace(**({"interpreter": "", "fetch": []} | tag)) for tag in tags]
                ),
            )
            for root, tags in modules
        ]
    )
    functions["namedtensor"](context)
    return repositories


def test_the_example_says_the_same_as_a_module_and_as_a_workspace() -> None:
    example = Module(RULES / "example" / "MODULE.bazel")
    workspace = ast.parse((RULES / "example" / "WORKSPACE").read_text())
    calls = {
        ast.unparse(one.value.func): {word.arg: ast.literal_eval(word.value) for word in one.value.keywords}
        for one in workspace.body
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)
    }
    assert example.name == calls["workspace"]["name"]
    assert example.overrides == {calls["local_repository"]["name"]: calls["local_repository"]["path"]}
    assert example.environments == [calls["nt_environment"]]
    assert example.needs == {"namedtensor": namedtensor.__version__}
    assert example.extensions == [("@namedtensor//:extensions.bzl", "namedtensor")]


def test_the_module_makes_the_repository_that_the_rules_take_by_default() -> None:
    ours = Module(RULES / "MODULE.bazel")
    assert (ours.name, ours.version) == ("namedtensor", namedtensor.__version__)
    assert ours.extensions == [("//:extensions.bzl", "namedtensor")]
    (name,) = ours.repositories
    assert f'build_setting_default = "@{name}//:toolchain"' in (RULES / "BUILD.bazel").read_text()
    assert [one["name"] for one in made((True, []))] == [name]


def test_the_root_module_says_which_environment() -> None:
    (repository,) = made((True, [{"interpreter": "a"}]), (False, [{"interpreter": "b"}]))
    assert repository["interpreter"] == "a"
    (repository,) = made((True, []), (False, [{"interpreter": "b"}]))
    assert "interpreter" not in repository
    with pytest.raises(ValueError, match="2 times"):
        made((True, [{"interpreter": "a"}, {"interpreter": "b"}]))
