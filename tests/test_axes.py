"""The mini-language for axes: what it reads, what it refuses, and that it never fails in another way."""

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import namedtensor as nt
from namedtensor import _axes

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("spec", "groups"),
    [
        ("", ()),
        ("b", (("b",),)),
        ("b s d", (("b",), ("s",), ("d",))),
        ("  b   s\td ", (("b",), ("s",), ("d",))),
        ("(heads hd) d", (("heads", "hd"), ("d",))),
        ("b(kv group hd)d", (("b",), ("kv", "group", "hd"), ("d",))),
        ("b 1 d", (("b",), (), ("d",))),
        ("()", ((),)),
        ("_x1 X", (("_x1",), ("X",))),
    ],
)
def test_a_spec_is_one_group_of_names_per_stored_axis(spec: str, groups: tuple[tuple[str, ...], ...]) -> None:
    assert _axes.parse(spec).groups == groups


@pytest.mark.parametrize(
    ("spec", "problem", "column"),
    [
        ("b 2 d", "'2' is not an axis name", 2),
        ("b s,d", "'s,d' is not an axis name", 2),
        ("b (s d", "'(' is never closed", 2),
        ("b) s", "')' closes nothing", 1),
        ("(b (s d))", "groups cannot nest", 3),
        ("(1 d)", "'1' is not an axis name", 1),
        ("s keys s", "axis 's' is named twice; an axis has one place", 7),
        ("s s keys", "axis 's' is named twice; an axis has one place", 2),
        ("b -> s", "'->' is not an axis name", 2),
        ("größe", "'größe' is not an axis name", 0),
    ],
)
def test_a_mistake_is_pointed_at(spec: str, problem: str, column: int) -> None:
    with pytest.raises(nt.AxisError) as raised:
        _axes.parse(spec)
    headline, quoted, caret, *_ = str(raised.value).splitlines()
    assert headline == f"bad axis spec: {problem}"
    assert quoted.strip() == f'"{spec}"'
    assert caret.index("^") - quoted.index('"') - 1 == column


@given(st.text(max_size=40) | st.text("ab_1() ->\n\t", max_size=40))
@settings(max_examples=500)
@example("\x00")
@example("b\u2028s")
def test_no_text_gives_anything_but_a_layout_or_an_axis_error(text: str) -> None:
    for read in (_axes.parse, _axes.names, lambda spec: _axes.arrow(spec, "rename")):
        try:
            read(text)
        except nt.AxisError as error:
            assert str(error)


@pytest.mark.parametrize("value", [None, 0, -1, 2.5, b"b s", ("b", "s"), ["b", "s"], {"b"}, object()])
def test_what_is_no_text_is_refused(value: object) -> None:
    for read in (_axes.parse, _axes.names, lambda spec: _axes.arrow(spec, "rename")):
        with pytest.raises(nt.AxisError):
            read(value)  # type: ignore[arg-type]


@given(st.lists(st.lists(NAMES, max_size=3), max_size=4))
@settings(max_examples=100)
def test_what_is_written_is_read_back(groups: list[list[str]]) -> None:
    names = [name for group in groups for name in group]
    spec = " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)
    if len(set(names)) < len(names):
        with pytest.raises(nt.AxisError, match="is named twice"):
            _axes.parse(spec)
    else:
        layout = _axes.parse(spec)
        assert layout.groups == tuple(map(tuple, groups))
        assert layout.axes == tuple(names)


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), max_size=4), st.data())
@settings(max_examples=100)
def test_sizes_are_told_from_products(sizes: list[list[int]], data: st.DataObject) -> None:
    flat = [size for group in sizes for size in group]
    names = [f"x{i}" for i in range(len(flat))]
    table, todo, spec, given_sizes = dict(zip(names, flat, strict=True)), list(names), [], {}
    for group in sizes:
        members, todo = todo[: len(group)], todo[len(group) :]
        spec.append(f"({' '.join(members)})")
        left_out = data.draw(st.sampled_from([*members, None]))
        given_sizes.update({name: table[name] for name in members if name != left_out})
    layout = _axes.parse(" ".join(spec))
    assert layout.resolve([math.prod(group) for group in sizes], given_sizes) == tuple(flat)


@pytest.mark.parametrize(
    ("spec", "shape", "sizes", "problem"),
    [
        ("b s", (2,), {}, "the spec names 2 stored axes, the array has 1"),
        ("b s", (2, 3), {"d": 3}, "a size is given for 'd', which the spec does not name"),
        ("b", (2,), {"b": 3}, "stored axis 0 has size 2, which is not b with b=3"),
        ("(a b)", (6,), {}, "the sizes of 'a' and 'b' cannot both be told from one stored axis"),
        ("(a b)", (6,), {"a": 4}, "stored axis 0 has size 6, which is not (a b) with a=4"),
        ("(a b)", (6,), {"a": 0}, "stored axis 0 has size 6, which is not (a b) with a=0"),
        ("(a b)", (0,), {"a": 0}, "stored axis 0 has size 0, which is not (a b) with a=0"),
        ("1", (2,), {}, "stored axis 0 has size 2, which is not 1"),
        ("(a b)", (6,), {"a": -2}, "a=-2 is not a size"),
        ("(a b)", (6,), {"a": 2.0}, "a=2.0 is not a size"),
        ("(a b)", (6,), {"a": True}, "a=True is not a size"),
    ],
)
def test_sizes_that_do_not_come_out_are_refused(
    spec: str, shape: tuple[int, ...], sizes: dict[str, int], problem: str
) -> None:
    with pytest.raises(nt.AxisError, match=re.escape(problem)):
        _axes.parse(spec).resolve(shape, sizes)


def test_an_arrow_has_names_on_both_sides() -> None:
    assert _axes.arrow("kv group -> heads", "merge") == (("kv", "group"), ("heads",))
    assert _axes.arrow("s->keys", "rename") == (("s",), ("keys",))
    for wrong in ("s keys", "a -> b -> c", "(a b) -> c"):
        with pytest.raises(nt.AxisError):
            _axes.arrow(wrong, "merge")
