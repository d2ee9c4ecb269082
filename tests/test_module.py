"""Modules are frozen dataclasses and pytrees; so are tensors."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt


def silu(x: nt.Tensor) -> nt.Tensor:
    return x * x.sigmoid()


class Linear(nt.Module):
    weight: nt.Tensor
    bias: nt.Tensor | None = None

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        y = x.dot(self.weight, "d").rename("k -> d")
        return y if self.bias is None else y + self.bias


class Stack(nt.Module):
    layers: list[Linear]
    named: dict[str, Linear]
    activation: Callable[[nt.Tensor], nt.Tensor] = silu
    scale: float = 2.0

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.named["last"](x) * self.scale


def linear(seed: int, bias: bool = True) -> Linear:
    rng = np.random.default_rng(seed)
    weight = nt.wrap(rng.normal(size=(4, 4)).astype(np.float32), "k d")
    return Linear(weight, nt.wrap(rng.normal(size=4).astype(np.float32), "d") if bias else None)


def stack() -> Stack:
    return Stack([linear(0), linear(1, bias=False)], {"last": linear(2)})


X = nt.ones("b d", b=2, d=4)


def test_a_module_is_a_frozen_dataclass() -> None:
    layer = linear(0)
    assert [field.name for field in dataclasses.fields(layer)] == ["weight", "bias"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.bias = None  # type: ignore[misc]
    changed = layer.replace(bias=None)
    assert changed.bias is None
    assert layer.bias is not None
    with pytest.raises(nt.ModelError, match="Linear has no field 'biass'"):
        layer.replace(biass=None)


def test_leaves_are_the_arrays_and_the_rest_is_structure() -> None:
    model = stack()
    structure: Any  # jax's own annotation of a PyTreeDef cannot be compared
    leaves, structure = jax.tree.flatten(model)
    assert [leaf.shape for leaf in leaves] == [(4, 4), (4,), (4, 4), (4, 4), (4,)]
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, Stack)
    assert (again.activation, again.scale, again.layers[1].bias) == (silu, 2.0, None)
    assert again.layers[0].weight.axes == ("k", "d")
    assert structure != jax.tree.structure(model.replace(scale=3.0))


def test_paths_read_like_the_model() -> None:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(stack())]
    assert paths == [
        ".layers[0].weight",
        ".layers[0].bias",
        ".layers[1].weight",
        ".named['last'].weight",
        ".named['last'].bias",
    ]


def test_jit_takes_a_module_as_an_argument_and_gives_the_same() -> None:
    model = stack()
    eager = model(X).numpy("b d")
    compiled = jax.jit(lambda model, x: model(x))(model, X)
    np.testing.assert_allclose(compiled.numpy("b d"), eager, rtol=1e-5)


def test_configuration_is_part_of_what_is_compiled() -> None:
    traced = []

    @jax.jit
    def run(model: Stack, x: nt.Tensor) -> nt.Tensor:
        traced.append(model.scale)
        return model(x)

    model = stack()
    for scale in (2.0, 2.0, 3.0):
        run(model.replace(scale=scale), X)
    assert traced == [2.0, 3.0]


def test_gradients_have_the_structure_of_the_model() -> None:
    model = stack()
    slopes = jax.grad(lambda model: model(X).square().sum("b d").array)(model)
    structure: Any = jax.tree.structure(slopes)
    assert structure == jax.tree.structure(model)
    step, bias = 1e-2, model.named["last"].bias
    assert bias is not None

    def loss(shift: float) -> float:
        last = model.named["last"].replace(bias=bias + shift)
        return float(model.replace(named={"last": last})(X).square().sum("b d").item())

    slope = slopes.named["last"].bias.sum("d").item()
    assert slope == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=1e-2)


def test_maps_over_arrays_keep_names() -> None:
    half = jax.tree.map(lambda array: array.astype(jnp.bfloat16), stack())
    assert half.layers[0].weight.dtype == jnp.bfloat16
    assert half.layers[0].weight.axes == ("k", "d")
    specs = jax.eval_shape(lambda model: model, stack())
    assert specs.layers[0].weight.sizes == {"k": 4, "d": 4}


def test_an_empty_list_of_layers_is_no_layers() -> None:
    model = stack().replace(layers=[])
    assert len(jax.tree.leaves(model)) == 2
    assert jax.jit(lambda model, x: model(x))(model, X).sizes == {"b": 2, "d": 4}


def test_a_subclass_adds_fields() -> None:
    class Scaled(Linear):
        by: float = 2.0

        def __call__(self, x: nt.Tensor) -> nt.Tensor:
            return super().__call__(x) * self.by

    layer = linear(0)
    scaled = Scaled(layer.weight, layer.bias, by=3.0)
    np.testing.assert_allclose(scaled(X).numpy("b d"), 3 * layer(X).numpy("b d"), rtol=1e-6)
    assert len(jax.tree.leaves(scaled)) == 2


def test_a_module_shows_names_sizes_and_types() -> None:
    assert repr(linear(0)) == "Linear(\n  weight=(k=4, d=4) float32,\n  bias=(d=4) float32,\n)"


@pytest.mark.parametrize("value", [np.ones(3), jnp.ones(3), [1, 2], {"a": 1}])
def test_what_is_neither_child_nor_constant_is_refused(value: Any) -> None:
    class Holds(nt.Module):
        value: Any

    with pytest.raises(nt.ModelError, match=r"Holds\.value holds something of type"):
        jax.tree.leaves(Holds(value))


def test_a_tensor_is_a_pytree_with_one_leaf_that_may_be_anything() -> None:
    x = nt.ones("b d", b=2, d=4)
    (leaf,), structure = jax.tree.flatten(x)
    assert leaf.shape == (2, 4)
    placeholder = jax.tree.unflatten(structure, [None])
    assert placeholder.axes == ("b", "d")
    assert jax.tree.map(lambda *arrays: sum(arrays), x, x).numpy("b d").tolist() == [[2.0] * 4] * 2


def test_tensors_with_names_in_another_order_are_other_trees() -> None:
    x, y = nt.ones("b d", b=2, d=2), nt.ones("d b", b=2, d=2)
    with pytest.raises(ValueError, match="pytree"):
        jax.tree.map(lambda a, b: a + b, x, y)


def test_a_tensor_shows_its_names_and_values() -> None:
    assert repr(nt.wrap([1.0, 2.0], "s")) == "Tensor(s=2) float32 [1., 2.]"
    assert repr(nt.spec("b s", "int32", b=2, s=3)) == "Tensor(b=2, s=3) int32"


def test_donated_tensors_are_given_away() -> None:
    x = nt.ones("s", s=1024)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    assert x.array.is_deleted()
