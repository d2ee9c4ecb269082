"""The native CPU contraction: `nt.dot` against numpy, its refusals, and when it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import namedtensor as nt
from namedtensor import _kernels

native = pytest.mark.skipif(not _kernels.available(), reason="scripts/build-kernels has not built the library")

LAYOUTS = ("nk", "kn")
BF16, F16, F32 = jnp.dtype(jnp.bfloat16), jnp.dtype(np.float16), jnp.dtype(np.float32)
# Odd sizes, sizes of whole vectors, one row and many, one batch member and several.
SIZES = ((1, 1, 1, 1), (1, 1, 96, 64), (2, 3, 41, 70), (1, 8, 130, 259), (3, 17, 33, 31), (1, 33, 65, 100))


def operands(sizes, dtype, layout, seed=0):
    b, m, n, k = sizes
    rng = np.random.default_rng(seed)
    shapes = (b, m, k), ((b, n, k) if layout == "nk" else (b, k, n))
    if dtype == np.int8:
        return [jnp.asarray(rng.integers(-128, 128, shape, np.int8)) for shape in shapes]
    return [jnp.asarray(rng.uniform(-1, 1, shape), dtype) for shape in shapes]


def exact(x, w, layout):
    axes = "bmk,bnk->bmn" if layout == "nk" else "bmk,bkn->bmn"
    return np.einsum(axes, np.asarray(x, np.float64), np.asarray(w, np.float64))


def call(x, w, out, **attributes):
    return jax.jit(
        jax.ffi.ffi_call(_kernels.TARGET, jax.ShapeDtypeStruct(*out)), static_argnames=("w_layout", "extra")
    )(x, w, **attributes)


@pytest.fixture
def registered():
    assert _kernels.register()


@native
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [BF16, F16, F32], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_floating_operands_are_summed_in_f32(sizes, dtype, layout):
    x, w = operands(sizes, dtype, layout)
    dot = jax.jit(lambda x, w: _kernels.dot(x, w, layout=layout, out_dtype=F32))
    magnitude = exact(abs(x), abs(w), layout)
    y = dot(x, w)
    assert y.dtype == F32
    # Every product and every sum rounds by at most half a unit in the last place.
    assert np.all(abs(y - exact(x, w, layout)) <= np.finfo(np.float32).eps * sizes[3] * magnitude)


@native
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_int8_is_exact(sizes, layout):
    x, w = operands(sizes, np.int8, layout)
    y = jax.jit(lambda x, w: _kernels.dot(x, w, layout=layout, out_dtype=np.int32))(x, w)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, exact(x, w, layout))


@native
@pytest.mark.parametrize(
    ("dtype", "out"),
    [(BF16, BF16), (BF16, F16), (F16, F16), (F32, BF16), (np.int8, np.int8)],
    ids=str,
)
def test_the_result_is_the_sum_cast_to_the_type_asked_for(dtype, out):
    x, w = operands((1, 2, 48, 70), dtype, "nk")
    if dtype == np.int8:
        x = x % 2
    wide = _kernels.dot(x, w, layout="nk", out_dtype=np.int32 if dtype == np.int8 else F32)
    y = _kernels.dot(x, w, layout="nk", out_dtype=out)
    assert y.dtype == out
    np.testing.assert_array_equal(y, wide.astype(y.dtype))


@native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_does_not_depend_on_its_neighbours(layout):
    # In f32: for bf16, matrix tiles take over at some number of rows, and add up in another order.
    x, w = operands((1, 8, 130, 259), F32, layout)
    dot = jax.jit(lambda x, w: _kernels.dot(x, w, layout=layout, out_dtype=F32))
    together = dot(x, w)
    for row in range(8):
        np.testing.assert_array_equal(dot(x[:, row : row + 1], w)[:, 0], together[:, row])


@native
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)], ids=str)
def test_vmap_maps_either_operand(axes, layout):
    pairs = [operands((2, 3, 41, 70), F32, layout, seed) for seed in range(4)]
    x, w = (
        pairs[0][i] if axis is None else jnp.stack([pair[i] for pair in pairs], axis) for i, axis in enumerate(axes)
    )
    y = jax.jit(jax.vmap(lambda x, w: _kernels.dot(x, w, layout=layout, out_dtype=F32), axes))(x, w)
    for v in range(4):
        expected = exact(pairs[v if axes[0] is not None else 0][0], pairs[v if axes[1] is not None else 0][1], layout)
        np.testing.assert_allclose(y[v], expected, rtol=0, atol=1e-4)


@native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_derivatives_are_those_of_xlas_contraction(layout):
    x, w = operands((2, 3, 41, 70), F32, layout)

    def loss(dot):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(dot(x, w))), argnums=(0, 1))

    ours = loss(lambda x, w: _kernels.dot(x, w, layout=layout, out_dtype=F32))(x, w)
    theirs = loss(lambda x, w: lax.dot_general(x, w, _kernels._DIMENSIONS[layout], precision="highest"))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@native
@pytest.mark.parametrize("sizes", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)], ids=str)
def test_empty_axes_give_zeros_or_nothing(sizes, registered):
    x, w = operands(sizes, BF16, "nk")
    b, m, n, _ = sizes
    y = call(x, w, ((b, m, n), F32), w_layout="nk")
    np.testing.assert_array_equal(y, np.zeros((b, m, n)))


@native
@pytest.mark.parametrize(
    ("x", "w", "out", "attributes", "message"),
    [
        (((1, 2, 4), F32), ((1, 5, 3), F32), ((1, 2, 5), F32), {"w_layout": "nk"}, r"do not fit together.*\[1, 5, 4\]"),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "kn"}, "do not fit together"),
        (((1, 2, 4), F32), ((2, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "nk"}, "do not fit together"),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 6), F32), {"w_layout": "nk"}, "do not fit together"),
        (((2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "nk"}, "3 dimensions.*not 2"),
        (((1, 2, 4), BF16), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "nk"}, "x is bf16, w f32"),
        (((1, 2, 4), np.int8), ((1, 5, 4), np.int8), ((1, 2, 5), F32), {"w_layout": "nk"}, "result f32.*int32"),
        (((1, 2, 4), np.int16), ((1, 5, 4), np.int8), ((1, 2, 5), F32), {"w_layout": "nk"}, "element types are bf16"),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "km"}, '"nk" or "kn", not "km"'),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": 1}, '"nk" or "kn"'),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {}, '"nk" or "kn", but there are 0'),
        (((1, 2, 4), F32), ((1, 5, 4), F32), ((1, 2, 5), F32), {"w_layout": "nk", "extra": 1}, "but there are 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(x, w, out, attributes, message, registered):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"nt.dot: .*{message}"):
        call(jnp.zeros(*x), jnp.zeros(*w), out, **attributes)


@native
def test_numbers_of_operands_are_checked(registered):
    x, w = operands((1, 1, 2, 3), F32, "nk")
    with pytest.raises(jax.errors.JaxRuntimeError, match="number of operands must be 2, not 3"):
        jax.ffi.ffi_call(_kernels.TARGET, jax.ShapeDtypeStruct((1, 1, 2), F32))(x, w, w, w_layout="nk")
    with pytest.raises(jax.errors.JaxRuntimeError, match="number of results must be 1, not 2"):
        jax.ffi.ffi_call(_kernels.TARGET, [jax.ShapeDtypeStruct((1, 1, 2), F32)] * 2)(x, w, w_layout="nk")


@native
def test_results_do_not_depend_on_the_number_of_threads():
    program = """
import hashlib, jax, jax.numpy as jnp, numpy as np
from namedtensor import _kernels
assert _kernels.library().nt_threads() == {threads}
digest = hashlib.sha256()
for layout, shape in (("nk", (2, 515, 259)), ("kn", (2, 259, 515))):
    for dtype in (jnp.bfloat16, jnp.float32):
        rng = np.random.default_rng(0)
        x, w = (jnp.asarray(rng.uniform(-1, 1, s), dtype) for s in ((2, 5, 259), shape))
        digest.update(np.asarray(_kernels.dot(x, w, layout=layout, out_dtype=jnp.float32)).tobytes())
print(digest.hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", program.format(threads=threads)],
            env={**os.environ, "NT_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 5)
    }
    assert len(digests) == 1


@native
def test_all_but_small_products_of_its_types_are_its_business():
    def chosen(*sizes, dtype=BF16, out_dtype=BF16):
        return _kernels.worthwhile(*sizes, dtype=dtype, out_dtype=out_dtype)

    for rows in (1, 512):
        for dtype in (BF16, F16, F32):
            assert chosen(1, rows, 2048, 2048, dtype=dtype, out_dtype=dtype)
        assert chosen(1, rows, 2048, 2048, dtype=np.int8, out_dtype=np.int32)
    assert not chosen(1, 1, 16, 16)
    assert not chosen(0, 1, 2048, 2048)
    assert not chosen(1, 1, 2048, 2048, dtype=np.float64, out_dtype=np.float64)
    assert not chosen(1, 1, 2048, 2048, dtype=np.int8, out_dtype=F32)


@pytest.mark.parametrize("missing", ["library", "variable"])
def test_without_the_library_nothing_is_worthwhile(missing, monkeypatch, tmp_path):
    if missing == "variable":
        monkeypatch.setenv("NAMEDTENSOR_KERNELS", "off")
    else:
        monkeypatch.setattr(_kernels, "library", lambda: None)
    assert not _kernels.available()
    assert not _kernels.register()
    assert not _kernels.worthwhile(1, 1, 2048, 2048, dtype=BF16, out_dtype=BF16)
    with pytest.raises(RuntimeError, match="scripts/build-kernels"):
        _kernels.dot(jnp.zeros((1, 1, 4)), jnp.zeros((1, 4, 4)), layout="nk", out_dtype=F32)


def test_a_library_that_cannot_be_loaded_is_named_and_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(_kernels, "LIBRARY", broken)
    with pytest.warns(RuntimeWarning, match="XLA's own are used.*broken.so"):
        assert _kernels.library.__wrapped__() is None


def test_layouts_have_two_names():
    with pytest.raises(ValueError, match='"nk" or "kn", not \'mk\''):
        _kernels.dot(jnp.zeros((1, 1, 4)), jnp.zeros((1, 4, 4)), layout="mk", out_dtype=F32)


@native
def test_programs_for_any_compiler_have_no_native_contraction() -> None:
    @jax.jit
    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return nt.wrap(x, "m k").dot(nt.wrap(w, "n k"), "k").array

    specs = jax.ShapeDtypeStruct((64, 128), "float32"), jax.ShapeDtypeStruct((32, 128), "float32")

    def found() -> bool:
        return _kernels.TARGET in product.lower(*specs).as_text()

    assert found()
    with _kernels.nowhere():
        assert not found()
    assert found()
