from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, case, cases

WINDOWS = {"conv1d": "w", "conv2d": "h w"}
CASES = [(group, name) for group in WINDOWS for name in cases(group)]


def settings(parameters):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("group", "name"), CASES)
def test_convolution_equals_pytorch(group, name, mode):
    parameters, a = case(group, name)
    window = WINDOWS[group]
    kernel = " ".join(f"k{axis}" for axis in window.split())
    bias = nt.wrap(a["bias"], "out") if "bias" in a else None
    layer = nn.Conv(nt.wrap(a["weight"], f"out c {kernel}"), bias, window, **settings(parameters))
    # Stored in another order than the reference: the result must not depend on it.
    x = nt.wrap(a["x"], f"b c {window}").transpose(f"{window} b c")
    y = MODES[mode](lambda layer, x: layer(x))(layer, x)
    np.testing.assert_allclose(y.numpy(f"b c {window}"), a["out"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("group", WINDOWS)
def test_a_kernel_without_output_channels_is_depthwise(group):
    parameters, a = case(group, "depthwise")
    window = WINDOWS[group]
    kernel = " ".join(f"k{axis}" for axis in window.split())
    keywords = {key: value for key, value in settings(parameters).items() if key != "groups"}
    layer = nn.Conv(nt.wrap(a["weight"], f"c 1 {kernel}"), nt.wrap(a["bias"], "c"), window, **keywords)
    y = layer(nt.wrap(a["x"], f"b c {window}"))
    np.testing.assert_allclose(y.numpy(f"b c {window}"), a["out"], rtol=2e-5, atol=2e-5)


def test_axes_that_are_not_named_are_batch_axes():
    layer = nn.Conv(nt.ones("out c kh kw", out=3, c=2, kh=3, kw=3), padding="same")
    x = nt.ones("clip frame c h w", clip=2, frame=4, c=2, h=5, w=6)
    assert layer(x).sizes == {"clip": 2, "frame": 4, "c": 3, "h": 5, "w": 6}


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_equals_pytorch(mode):
    parameters, a = case("batch_norm", "inference")
    weight, bias, mean, var = (nt.wrap(a[name], "c") for name in ("weight", "bias", "mean", "var"))
    layer = nn.BatchNorm(weight, bias, mean, var, **parameters)
    x = nt.wrap(a["x"], "b c h w").transpose("c w h b")
    y = MODES[mode](lambda layer, x: layer(x))(layer, x)
    np.testing.assert_allclose(y.numpy("b c h w"), a["out"], rtol=2e-5, atol=2e-5)


def test_batch_norm_of_half_types_is_computed_in_f32():
    weight, bias, mean, var = (nt.wrap(np.array([value], np.float16), "c") for value in (1.0, 0.0, 2048.0, 1e-4))
    y = nn.BatchNorm(weight, bias, mean, var, eps=1e-5)(nt.wrap(np.array([2050.0], np.float16), "c"))
    assert y.dtype == "float16"
    # In float16 the variance and epsilon would lose three digits.
    np.testing.assert_allclose(y.numpy("c"), 2 / np.sqrt(np.float16(1e-4) + 1e-5), rtol=1e-3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> nt.Checkpoint:
    shapes = {
        "full.weight": (4, 2, 3, 5),
        "full.bias": (4,),
        "depthwise.weight": (4, 1, 3, 3),
        "depthwise.bias": (4,),
        **{f"norm.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")},
    }
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    return nt.Checkpoint.open(tmp_path / "x.safetensors")


def test_layers_are_declared_from_a_checkpoint(checkpoint: nt.Checkpoint):
    full = nn.Conv.load(checkpoint.scope("full"), bias=True, stride=2)
    assert full.weight.sizes == {"out": 4, "c": 2, "kh": 3, "kw": 5}
    assert full.bias is not None
    assert full.bias.axes == ("out",)
    depthwise = nn.Conv.load(checkpoint.scope("depthwise"), "c 1 kh kw", bias=True)
    assert depthwise.weight.axes == ("c", "kh", "kw")
    assert depthwise.bias is not None
    assert depthwise.bias.axes == ("c",)
    assert nn.Conv.load(checkpoint.scope("full"), dtype="bfloat16").weight.dtype == "bfloat16"
    assert nn.BatchNorm.load(checkpoint.scope("norm"), eps=0.1).eps == 0.1


def test_settings_must_fit_the_window():
    layer = nn.Conv(nt.ones("out c kh kw", out=3, c=2, kh=3, kw=3), stride=(1, 2, 3))
    with pytest.raises(nt.ModelError, match="stride holds 3 values for 2 axes"):
        layer(nt.ones("c h w", c=2, h=5, w=6))


def test_a_forgotten_axis_is_named():
    layer = nn.Conv(nt.ones("out c kh kw", out=3, c=2, kh=3, kw=3))
    with pytest.raises(nt.AxisError, match="'w'"):
        layer(nt.ones("c h width", c=2, h=5, width=6))
    with pytest.raises(nt.AxisError, match="'c'"):
        layer(nt.ones("channels h w", channels=2, h=5, w=6))
