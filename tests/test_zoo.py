"""How model files are found, executed and set up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest

from namedtensor import ModelError, zoo
from namedtensor.zoo import ChoiceError, Option

PROGRAM = "def program(ckpt): ...\n"


def write(path: Path, text: str = PROGRAM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_zoo_knows_its_models() -> None:
    assert {"digits", "bert", "minilm", "llama", "shakespeare"} <= set(zoo.names())
    assert zoo.find("digits").module.__name__ == "namedtensor.models.digits.model"


def test_the_path_of_a_model_in_the_zoo_is_that_model() -> None:
    path = zoo.find("digits").path
    assert zoo.find(path).module is zoo.find("digits").module
    assert zoo.find(str(path.parent) + "/").module is zoo.find("digits").module


def test_a_users_file_is_executed_under_a_private_name(tmp_path: Path) -> None:
    # A file called like a package must not hide it.
    file = zoo.find(write(tmp_path / "tokenizers.py", PROGRAM + "NAME = __name__\n"))
    assert file.name == "tokenizers"
    assert file.module.NAME.startswith("_namedtensor_model_")
    assert sys.modules.get("tokenizers") is not file.module


def test_a_users_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", PROGRAM + "from .other import VALUE\n")
    write(tmp_path / "other.py", "VALUE = 1\n")
    assert zoo.find(path).module.VALUE == 1
    write(tmp_path / "other.py", "VALUE = 2000\n")
    assert zoo.find(path).module.VALUE == 2000


@pytest.mark.parametrize("line", ["from .config import SIZE", "from namedtensor_test_config import SIZE"])
def test_files_beside_it_are_found(tmp_path: Path, line: str) -> None:
    write(tmp_path / "config.py", "SIZE = 3\n")
    write(tmp_path / "namedtensor_test_config.py", "SIZE = 3\n")
    assert zoo.find(write(tmp_path / "mine.py", f"{line}\n{PROGRAM}")).module.SIZE == 3


def test_what_lies_beside_a_link_is_found_and_not_what_lies_beside_its_target(tmp_path: Path) -> None:
    write(tmp_path / "there" / "mine.py", f"from .sizes import SIZE\n{PROGRAM}")
    write(tmp_path / "there" / "sizes.py", "SIZE = 3\n")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "mine.py"
    link.symlink_to(tmp_path / "there" / "mine.py")
    with pytest.raises(ModelError, match="sizes"):
        zoo.find(link)
    write(tmp_path / "here" / "sizes.py", "SIZE = 5\n")
    assert zoo.find(link).module.SIZE == 5


def test_a_file_inside_a_package_finds_what_is_above_it(tmp_path: Path) -> None:
    write(tmp_path / "pkg" / "__init__.py", "")
    write(tmp_path / "pkg" / "common.py", "SIZE = 4\n")
    write(tmp_path / "pkg" / "net" / "__init__.py", "")
    path = write(tmp_path / "pkg" / "net" / "model.py", f"from ..common import SIZE\n{PROGRAM}")
    assert zoo.find(path).module.SIZE == 4
    assert zoo.find(path).name == "net"


def test_a_directory_stands_for_its_model_py(tmp_path: Path) -> None:
    write(tmp_path / "net" / "model.py")
    assert zoo.find(tmp_path / "net").name == "net"
    with pytest.raises(ChoiceError, match=r"holds no model\.py"):
        zoo.find(tmp_path)


@pytest.mark.parametrize("name", ["my-model.py", "a.b.py", "1.py"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    assert zoo.find(write(tmp_path / name)).name == name.removesuffix(".py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise KeyError('width')", r":2: KeyError: 'width'"),
        ("def program(:", r":1: SyntaxError: "),
        ("import no_such_package", r":1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys\nsys.exit(3)", r":2: SystemExit: 3"),
        ("from .broken import x", r"broken\.py:1: ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_in_the_file_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "broken.py", "1 / 0")
    with pytest.raises(ModelError, match=message):
        zoo.find(write(tmp_path / "mine.py", text))


def test_an_error_while_the_program_is_built_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "def program(ckpt):\n    return ckpt.nothing\n")
    weights = zoo.find("digits").weights
    with pytest.raises(ModelError, match=r"mine\.py:2: AttributeError: .*nothing"):
        zoo.find(path).program(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine\.py: a model file defines `program\(ckpt\) -> nt.Program`, and this one does not"),
        ("def program(ckpt): return 3", r"mine\.py: program\(ckpt\) must return an nt.Program, not 3"),
        ("WEIGHTS = 3\n" + PROGRAM, r"mine\.py: WEIGHTS must be a path or an address, not 3"),
        ("def program(ckpt, *, size: int): ...", r"mine needs the option size \(a whole number\)"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = zoo.find(write(tmp_path / "mine.py", text))
    with pytest.raises(ModelError, match=message):
        file.program(None if "WEIGHTS" in text else zoo.find("digits").weights)


def test_weights_are_relative_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", PROGRAM + "WEIGHTS = 'w/a.safetensors'\n")
    assert zoo.find(path).weights == str(tmp_path / "w" / "a.safetensors")
    write(path, PROGRAM + "WEIGHTS = 'hf://org/repo'\n")
    assert zoo.find(path).weights == "hf://org/repo"


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "3", 3),
        (float, "1e-3", 1e-3),
        (bool, "yes", True),
        (bool, "False", False),
        (str, "3", "3"),
        (Path, "a/b", Path("a/b")),
        (int | None, "none", None),
        (int | None, "7", 7),
        (Literal["a", "b"], "b", "b"),
        (tuple[int, ...], "1, 2,3", (1, 2, 3)),
        (tuple[int, str], "1,x", (1, "x")),
        (None, "x", "x"),
    ],
)
def test_values_of_options_follow_their_annotations(annotation: object, text: str, value: object) -> None:
    assert Option("option", annotation, None).parse(text) == value


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (int, "3.5", "is not a whole number"),
        (bool, "maybe", "is not true or false"),
        (Literal["a", "b"], "c", "is not a or b"),
        (tuple[int, int], "1", "is not a comma-separated list"),
        (int | None, "x", "is not a whole number or none"),
    ],
)
def test_values_that_an_option_cannot_have_are_refused(annotation: object, text: str, message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        Option("option", annotation, None).parse(text)


def test_annotations_as_strings_are_understood(tmp_path: Path) -> None:
    text = "from __future__ import annotations\ndef program(ckpt, *, size: int = 3, kind: Unknown = 'x'): ...\n"
    file = zoo.find(write(tmp_path / "mine.py", text))
    assert file.parse(["size=4", "kind=y"]) == {"size": 4, "kind": "y"}
