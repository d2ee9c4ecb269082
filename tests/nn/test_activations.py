import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, case, cases


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", cases("activation"))
def test_equals_pytorch(name, mode):
    _, a = case("activation", name)
    y = MODES[mode](nn.activation(name))(nt.wrap(a["x"], " ".join("bsd"[: a["x"].ndim])))
    np.testing.assert_allclose(y.numpy(" ".join(y.axes)), a["out"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "softplus", "sigmoid", "tanh"])
def test_half_types_are_rounded_once(name):
    x = jnp.linspace(-6, 6, 257).astype(jnp.bfloat16)
    function = nn.activation(name)
    wide = function(nt.wrap(x.astype(jnp.float32), "d")).cast("bfloat16")
    y = function(nt.wrap(x, "d"))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.numpy("d"), wide.numpy("d"))


@pytest.mark.parametrize("name", ["softplus", "log_sigmoid", "silu", "mish", "elu", "gelu_tanh"])
def test_large_inputs_stay_finite(name):
    assert bool(nn.activation(name)(nt.wrap(np.array([-1e4, -100, 100, 1e4], np.float32), "d")).isfinite().all("d"))


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(nt.ModelError, match=r"'gelu_neww' is not implemented[\s\S]*did you mean 'gelu_new'"):
        nn.activation("gelu_neww")
    with pytest.raises(nt.ModelError, match="not implemented"):
        nn.activation(None)  # type: ignore[arg-type]


def test_relu6_keeps_integers_out_of_the_way():
    assert nn.relu6(nt.wrap(np.array([-1, 3, 9], np.float32), "d")).numpy("d").tolist() == [0, 3, 6]
