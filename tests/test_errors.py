"""Every misuse gives the report of the table, to the letter, before anything runs; the page in the docs shows them."""

import jax
import pytest

import namedtensor as nt
from namedtensor._errors import closest, describe
from scripts import docs_errors
from tests.misuses import Misuse, read

MISUSES = read()


def report(misuse: Misuse, *, traced: bool) -> tuple[str, str]:
    run = jax.jit(misuse.run) if traced else misuse.run
    with pytest.raises(nt.NamedTensorError) as raised:
        run(misuse.tensors())
    return type(raised.value).__name__, str(raised.value)


@pytest.mark.parametrize("misuse", MISUSES, ids=str)
def test_a_misuse_is_reported(misuse: Misuse) -> None:
    assert report(misuse, traced=False) == (misuse.kind, misuse.report.strip())


@pytest.mark.parametrize("misuse", MISUSES, ids=str)
def test_a_misuse_is_reported_alike_while_tracing(misuse: Misuse) -> None:
    assert report(misuse, traced=True) == (misuse.kind, misuse.report.strip())


@pytest.mark.parametrize("misuse", MISUSES, ids=str)
def test_a_report_names_the_line_that_is_wrong(misuse: Misuse) -> None:
    lines = misuse.code.strip().splitlines()
    located = [line for line in misuse.report.splitlines() if line.strip().startswith("at ")]
    assert len(located) == 1
    number, _, expression = located[0].partition("model.py:")[2].partition(": ")
    assert expression in lines[int(number) - 1]


def test_the_page_shows_twenty_or_more_of_them_and_is_up_to_date() -> None:
    assert len({misuse.title for misuse in MISUSES}) == len(MISUSES) >= 30
    assert sum(misuse.page for misuse in MISUSES) >= 20
    assert docs_errors.PAGE.read_text(encoding="utf-8") == docs_errors.page(), "run python -m scripts.docs_errors"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (nt.AxisError, ValueError),
        (nt.DTypeError, TypeError),
        (nt.CheckpointError, ValueError),
        (nt.ModelError, ValueError),
        (nt.InputError, ValueError),
    ],
)
def test_errors_are_caught_as_one_kind_and_as_pythons_own(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, (nt.NamedTensorError, builtin))
    assert issubclass(error, nt.NamedTensorError)
    assert issubclass(error, builtin)


def test_the_headline_is_the_first_line() -> None:
    assert nt.AxisError("what\n  where").headline == "what"


def test_hasattr_keeps_its_meaning() -> None:
    x = nt.ones("s", s=3)
    assert not hasattr(x, "shape")
    assert not hasattr(x, "nonsense")
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'nonsense'"):
        x.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("name", "candidates", "guess"),
    [
        ("key", ["b", "keys"], "keys"),
        ("modle", ["model", "s"], "model"),
        ("k", ["j"], "j"),
        ("k", ["m", "n"], None),
        ("kv", ["kv_heads", "q"], "kv_heads"),
        ("x", [], None),
    ],
)
def test_the_likeliest_name_is_proposed(name: str, candidates: list[str], guess: str | None) -> None:
    assert closest(name, candidates) == guess


def test_operands_are_described_in_one_line() -> None:
    assert describe(nt.ones("b s", "int8", b=2, s=3)) == "(b=2, s=3) int8"
    assert describe(nt.spec("", "bfloat16")) == "() bfloat16"
    assert describe(jax.numpy.ones((2, 3))) == "jax array of shape (2, 3), float32, without axis names"
    assert describe("x" * 100).endswith("...")
