"""Orders and merges of named axes that have a given shape."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from namedtensor._axes import parse
from namedtensor.porting._layout import LIMIT, layouts


@pytest.mark.parametrize(
    ("sizes", "shape", "expected"),
    [
        ({"b": 2, "s": 5, "d": 3}, (2, 5, 3), ["b s d"]),
        ({"b": 2, "s": 5, "d": 3}, (3, 2, 5), ["d b s"]),
        ({"s": 5, "heads": 3, "hd": 4}, (5, 12), ["s (heads hd)", "s (hd heads)"]),
        ({"s": 5, "d": 3}, (1, 5, 3), ["1 s d"]),
        ({"b": 1, "s": 5, "d": 3}, (1, 5, 3), ["b s d"]),
        ({"b": 1, "s": 5, "d": 3}, (5, 3), ["(b s) d"]),
        ({"s": 4, "d": 4}, (4, 4), ["s d", "d s"]),
        ({"s": 5, "d": 3}, (5, 4), []),
        ({"s": 5}, (5, 1, 1), ["s 1 1"]),
        ({}, (), [""]),
    ],
)
def test_the_stored_order_comes_first(sizes: dict[str, int], shape: tuple[int, ...], expected: list[str]) -> None:
    assert layouts(sizes, shape) == expected


@given(st.permutations("abcde"), st.lists(st.integers(1, 4), min_size=5, max_size=5), st.integers(0, 15))
def test_each_has_the_shape_and_the_true_one_is_among_them(order: list[str], counts: list[int], cuts: int) -> None:
    sizes = dict(zip("abcde", counts, strict=True))
    array = np.arange(math.prod(counts)).reshape(counts)
    groups = [[order[0]]]
    for i, name in enumerate(order[1:]):
        if cuts >> i & 1:
            groups.append([])
        groups[-1].append(name)
    stored = in_layout(array, tuple(map(tuple, groups)))

    found = layouts(sizes, stored.shape)
    values = [in_layout(array, parse(spec).groups) for spec in found]
    assert all(value.shape == stored.shape for value in values)
    assert len(set(found)) == len(found)
    assert len(found) == LIMIT or any(np.array_equal(value, stored) for value in values)


def in_layout(array: np.ndarray, groups: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """`array` (a, b, c, d, e) in another order, with the axes of each group merged."""
    shape = [math.prod(array.shape["abcde".index(name)] for name in group) for group in groups]
    return array.transpose(["abcde".index(name) for group in groups for name in group]).reshape(shape)
