"""Orders and merges of named axes that have a given shape."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import namedtensor as nt
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


@given(st.permutations("abcde"), st.lists(st.integers(1, 4), min_size=5, max_size=5), st.integers(1, 31))
def test_each_has_the_shape_and_the_true_one_is_among_them(order: list[str], counts: list[int], cuts: int) -> None:
    sizes = dict(zip("abcde", counts, strict=True))
    x = nt.wrap(np.arange(math.prod(counts), dtype=np.int32).reshape(counts), "a b c d e")
    groups: list[list[str]] = [[]]
    for i, name in enumerate(order):
        groups[-1].append(name)
        if cuts >> i & 1 and i < 4:
            groups.append([])
    stored = x.numpy(" ".join(f"({' '.join(group)})" for group in groups))

    found = layouts(sizes, stored.shape)
    assert all(x.numpy(spec).shape == stored.shape for spec in found)
    assert len(set(found)) == len(found)
    assert len(found) == LIMIT or any(np.array_equal(x.numpy(spec), stored) for spec in found)
