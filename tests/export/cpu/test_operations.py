"""Programs made for one kind of step each: loops, branches, sorting, contractions and convolutions in many layouts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt
from tests.export.cpu.native import assert_as_jax


class Free(nt.Module):
    """A model without weights."""


def program_of(fn: Callable[..., Any], **specs: nt.Tensor) -> nt.Program:
    inputs: dict[str, Any] = dict(specs)
    return nt.Program(Free(), {"main": nt.entry(lambda model, **given: fn(**given), **inputs)})


def check(fn: Callable[..., Any], level: str = "x86-64-v2", **arrays: np.ndarray[Any, Any]) -> dict[str, int]:
    """Run `fn`, written on arrays, on both sides. Returns: how many steps of each kind it took."""
    axes = {name: " ".join(f"{name}{i}" for i in range(value.ndim)) for name, value in arrays.items()}
    specs = {
        name: nt.spec(axes[name], value.dtype, **dict(zip(axes[name].split(), value.shape, strict=True)))
        for name, value in arrays.items()
    }

    def on_tensors(**inputs: nt.Tensor) -> Any:
        found = fn(*[inputs[name].data(axes[name]) for name in arrays])
        return [nt.wrap(leaf, " ".join(f"o{i}" for i in range(leaf.ndim))) for leaf in jax.tree.leaves(found)]

    return assert_as_jax(program_of(on_tensors, **specs), "main", arrays, level).steps


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def test_a_loop_that_runs_until_a_condition_fails() -> None:
    def collatz(x: jax.Array) -> Any:
        def body(state: Any) -> Any:
            value, steps, y = state
            return jnp.where(value % 2 == 0, value // 2, 3 * value + 1), steps + 1, jnp.sin(y @ y.T / 40)

        start = (jnp.int32(27) + x.astype(jnp.int32)[0, 0] * 0, jnp.int32(0), x)
        return jax.lax.while_loop(lambda state: state[0] != 1, body, start)

    assert check(collatz, x=normal(40, 40))["while"] == 1


def test_a_loop_of_known_length_collects_its_results() -> None:
    def scan(x: jax.Array) -> Any:
        return jax.lax.scan(lambda carry, row: (jnp.tanh(carry @ carry.T / 16 + row), carry.sum()), jnp.eye(16), x)

    assert check(scan, x=normal(5, 16, 16))["while"] == 1


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 9])
def test_branches_by_index_are_clamped(index: int) -> None:
    branches = [lambda x: jnp.sin(x @ x), lambda x: jnp.cumsum(x @ x, 0), lambda x: jnp.exp(x @ x.T)]
    steps = check(lambda x, i: jax.lax.switch(i, branches, x), x=normal(48, 48), i=np.array(index, np.int32))
    assert steps["conditional"] == 1


@pytest.mark.parametrize("yes", [True, False])
def test_branches_by_truth_value(yes: bool) -> None:
    check(lambda x, p: jax.lax.cond(p, lambda v: v @ v, lambda v: jnp.sort(v, 0), x), x=normal(40, 40), p=np.array(yes))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sorting_along_every_axis(axis: int) -> None:
    ties = np.round(normal(7, 9, 5), 0)
    ties[0, 0] = [np.nan, np.inf, -np.inf, -0.0, 0.0]
    assert check(lambda x: (jnp.sort(x, axis), jnp.argsort(x, axis)), x=ties)["sort"] >= 1


def test_sorting_many_arrays_of_many_types_together() -> None:
    keys = np.array([3, 1, 3, 2, 1, 3], np.int32)
    others = (normal(6), np.arange(6, dtype=np.uint8), keys < 3, normal(6, dtype=jnp.bfloat16))
    check(
        lambda k, a, b, c, d: jax.lax.sort((k, a, b, c, d), num_keys=1),
        k=keys,
        a=others[0],
        b=others[1],
        c=others[2],
        d=others[3],
    )


def test_the_largest_of_each_row() -> None:
    values = np.round(normal(3, 300), 1)
    values[1, 7] = np.nan
    assert check(lambda x: jax.lax.top_k(x, 20), x=values)["top-k"] == 1


DOTS = {
    "rows by columns": ((8, 40), (40, 50), (((1,), (0,)), ((), ()))),
    "rows by rows": ((40, 70), (50, 70), (((1,), (1,)), ((), ()))),
    "columns by columns": ((70, 40), (70, 50), (((0,), (0,)), ((), ()))),
    "columns by rows": ((70, 40), (50, 70), (((0,), (1,)), ((), ()))),
    "batch": ((3, 40, 33), (3, 33, 50), (((2,), (1,)), ((0,), (0,)))),
    "batch in the middle": ((40, 3, 33), (33, 3, 50), (((2,), (0,)), ((1,), (1,)))),
    "several of each": ((2, 3, 20, 4, 9), (3, 9, 30, 4, 2), (((3, 4), (3, 1)), ((0, 1), (4, 0)))),
    "vector": ((100,), (100, 300), (((0,), (0,)), ((), ()))),
    "matrix by vector": ((300, 100), (100,), (((1,), (0,)), ((), ()))),
}


@pytest.mark.parametrize("case", DOTS)
def test_contractions_in_every_layout(case: str) -> None:
    left, right, dimensions = DOTS[case]
    highest = jax.lax.Precision.HIGHEST
    check(
        lambda x, y: [
            jax.lax.dot_general(x, y, dimensions, precision=highest),
            jax.lax.dot_general(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), dimensions, None, jnp.float32),
        ],
        x=normal(*left),
        y=normal(*right),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "int8"])
def test_contractions_of_other_types(dtype: str) -> None:
    wide = jnp.int32 if dtype == "int8" else None
    x, y = (4 * normal(50, 80)).astype(dtype), (4 * normal(80, 60)).astype(dtype)
    check(lambda x, y: jax.lax.dot(x, y, preferred_element_type=wide), "x86-64-v3", x=x, y=y)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "same": {"padding": "SAME"},
    "strided": {"window_strides": (2, 3), "padding": [(1, 2), (0, 3)]},
    "dilated": {"padding": "VALID", "rhs_dilation": (2, 1)},
    "transposed": {"padding": [(2, 2), (1, 3)], "lhs_dilation": (2, 2)},
    "cropped": {"padding": [(-1, 0), (0, -2)]},
    "groups": {"padding": "SAME", "feature_group_count": 4},
    "depthwise": {"padding": "SAME", "feature_group_count": 40, "window_strides": (2, 2)},
    "of single places": {"padding": "VALID", "window": (1, 1)},
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convolutions(case: str, layout: str) -> None:
    options = dict(CONVOLUTIONS[case])
    groups, window = options.get("feature_group_count", 1), options.pop("window", (3, 2))
    strides = options.pop("window_strides", (1, 1))
    x, kernel = normal(2, 12, 11, 40), normal(*window, 40 // groups, 40)
    dimensions = ("NHWC", "HWIO", "NHWC")
    if layout == "NCHW":
        x, kernel, dimensions = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), ("NCHW", "OIHW", "NCHW")

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, strides, dimension_numbers=dimensions, precision=jax.lax.Precision.HIGHEST, **options
        )

    check(convolve, x=x, kernel=kernel)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_over_one_axis_and_over_three(rank: int) -> None:
    x, kernel = normal(2, 8, *[6] * rank), normal(5, 8, *[3] * rank)
    check(lambda x, k: jax.lax.conv(x, k, [1] * rank, "SAME", jax.lax.Precision.HIGHEST), x=x, k=kernel)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "native"])
def test_functions_of_the_runners_own(level: str) -> None:
    """What machine code leaves to libm and to the compiler's runtime, on the level that leaves most of it."""

    def functions(x: jax.Array) -> Any:
        one = [
            jnp.sin,
            jnp.cos,
            jnp.tan,
            jnp.tanh,
            jnp.exp,
            jnp.expm1,
            jnp.log1p,
            jnp.cbrt,
            jnp.arctan,
            jnp.sinh,
            jnp.cosh,
        ]
        more = [
            jnp.floor,
            jnp.ceil,
            jnp.round,
            jnp.trunc,
            jnp.sqrt,
            jax.lax.rsqrt,
            jax.lax.erf,
            jax.nn.gelu,
            jnp.log,
            jnp.exp2,
        ]
        halves = [jnp.bfloat16] if level == "x86-64-v2" else [jnp.bfloat16, jnp.float16]
        rounded = [(x * 3).astype(dtype).astype(jnp.float32) * 2 for dtype in halves]
        sines = [jnp.sin(x.astype(dtype)) for dtype in halves]
        two = [jnp.arctan2(x, x + 1), jnp.power(x, 1.7), jnp.mod(x, 0.3), jnp.fmod(x, 0.3), jnp.nextafter(x, x + 1)]
        return [f(x) for f in (*one, *more)] + rounded + sines + two

    check(functions, level, x=np.abs(normal(40, 3)) + 0.1)


def test_scalars_empty_arrays_and_arguments_that_are_results() -> None:
    def mixed(x: jax.Array, n: jax.Array, none: jax.Array) -> Any:
        return [x, n + 1, none, none.sum(), jnp.zeros((3, 0)), x, jnp.arange(5), x[:, 0]]

    check(mixed, x=normal(3, 4), n=np.array(5, np.int32), none=normal(0, 4))
