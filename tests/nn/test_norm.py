import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, case, cases


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", cases("layer_norm"))
def test_layer_norm_equals_pytorch(name, mode):
    parameters, a = case("layer_norm", name)
    # Stored in another order than the reference: the result must not depend on it.
    x = nt.wrap(a["x"].transpose(2, 0, 1), "d b s")
    weight, bias = (nt.wrap(a[key], "d") if key in a else None for key in ("weight", "bias"))
    y = MODES[mode](lambda x: nn.layer_norm(x, "d", weight, bias, eps=parameters["eps"]))(x)
    np.testing.assert_allclose(y.numpy("b s d"), a["out"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", cases("rms_norm"))
def test_rms_norm_equals_pytorch(name, mode):
    parameters, a = case("rms_norm", name)
    x, weight = nt.wrap(a["x"], "b s d"), nt.wrap(a["weight"], "d")
    tolerance = 2e-5
    if name == "bfloat16":
        x, weight, tolerance = x.cast("bfloat16"), weight.cast("bfloat16"), 2**-7
    layer = nn.RMSNorm(weight, parameters["eps"])
    y = MODES[mode](lambda layer, x: layer(x))(layer, x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y.cast("float32").numpy("b s d"), a["out"], rtol=tolerance, atol=1e-7)


def test_norms_of_half_types_are_computed_in_f32():
    x = nt.wrap(jnp.full((1, 512), 300.0, jnp.float16), "b d")
    # 300² is beyond float16.
    np.testing.assert_allclose(nn.rms_norm(x, "d").numpy("b d"), 1.0)
    np.testing.assert_allclose(nn.layer_norm(x, "d").numpy("b d"), 0.0)


def test_several_axes_are_normalised_together():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    y = nn.rms_norm(nt.wrap(x, "b h w"), "h w", eps=0.0)
    np.testing.assert_allclose(y.numpy("b h w"), x / np.sqrt((x**2).mean((1, 2), keepdims=True)), rtol=1e-6)


def test_a_weight_over_an_axis_that_the_input_lacks_is_refused():
    with pytest.raises(nt.AxisError):
        nn.RMSNorm(nt.ones("hd", hd=4))(nt.ones("b d", b=2, d=4))
