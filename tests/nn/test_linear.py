import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn

RANDOM = np.random.default_rng(0)


class Store:
    """The part of a checkpoint that layers use, over arrays in memory."""

    def __init__(self, **stored: np.ndarray) -> None:
        self.stored = stored

    def weight(self, name: str, spec: str, /, *, dtype: str | None = None, **sizes: int) -> nt.Tensor:
        tensor = nt.wrap(self.stored[name], spec, **sizes)
        return tensor if dtype is None else tensor.cast(dtype)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_several_axes_on_either_side_and_a_bias():
    weight, bias, x = normal(12, 5), normal(12), normal(2, 3, 5)
    layer = nn.Linear.load(Store(weight=weight, bias=bias), "(heads hd) d", "d", bias=True, heads=3)  # type: ignore[arg-type]
    y = layer(nt.wrap(x, "b s d"))
    np.testing.assert_allclose(y.numpy("b s (heads hd)"), x @ weight.T + bias, rtol=1e-5, atol=1e-5)

    weight = normal(5, 12)
    layer = nn.Linear.load(Store(weight=weight), "d (heads hd)", "hd heads", heads=3)  # type: ignore[arg-type]
    x = normal(2, 3, 12)
    y = layer(nt.wrap(x, "b s (heads hd)", heads=3))
    np.testing.assert_allclose(y.numpy("b s d"), x @ weight.T, rtol=1e-5, atol=1e-5)


def test_a_weight_stored_input_first_needs_no_transpose():
    weight, x = normal(5, 7), normal(2, 5)
    layer = nn.Linear.load(Store(weight=weight), "d out", "d")  # type: ignore[arg-type]
    np.testing.assert_allclose(layer(nt.wrap(x, "b d")).numpy("b out"), x @ weight, rtol=1e-5, atol=1e-5)


def test_rows_stay_together_whether_they_or_the_weight_are_more():
    weight = normal(12, 5)
    layer = nn.Linear.load(Store(weight=weight), "(heads hd) d", "d", heads=3)  # type: ignore[arg-type]
    for texts in (1, 50):
        x = normal(texts, 3, 5)
        y = layer(nt.wrap(x, "b s d"))
        assert y.axes == ("b", "s", "heads", "hd")
        np.testing.assert_allclose(y.numpy("b s (heads hd)"), x @ weight.T, rtol=1e-5, atol=1e-5)


def test_a_group_contracted_in_part_is_refused():
    with pytest.raises(nt.AxisError, match=r"\(heads hd\) is contracted in part"):
        nn.Linear.load(Store(weight=normal(5, 12)), "d (heads hd)", "hd", heads=3)  # type: ignore[arg-type]


def test_embedding_looks_up_and_scores():
    table = normal(9, 4)
    layer = nn.Embedding.load(Store(weight=table))  # type: ignore[arg-type]
    ids = nt.wrap(np.array([[1, 8, 0]], np.int32), "b s")
    np.testing.assert_array_equal(layer(ids).numpy("b s d"), table[[[1, 8, 0]]])
    x = normal(2, 4)
    np.testing.assert_allclose(layer.logits(nt.wrap(x, "b d")).numpy("b vocab"), x @ table.T, rtol=1e-5, atol=1e-6)


def test_an_embedding_needs_its_ids_first():
    with pytest.raises(nt.AxisError, match="the axis of the ids comes first"):
        nn.Embedding.load(Store(weight=normal(9, 4)), "(vocab d) x")  # type: ignore[arg-type]


def test_layers_are_pytrees_with_their_weights_as_leaves():
    import jax

    layer = nn.Linear(nt.ones("out d", out=2, d=3), nt.zeros("out", out=2))
    assert [leaf.shape for leaf in jax.tree.leaves(layer)] == [(2, 3), (2,)]
    assert jax.tree.map(lambda a: a, layer).over == "d"
