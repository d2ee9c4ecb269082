"""A port against activations that PyTorch recorded: the first module that differs is found, and nothing before it."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import namedtensor as nt
from namedtensor.porting.torch_dump import METADATA
from tests.porting.scorer import NAMES, REFERENCE, recorded


@pytest.fixture(scope="module")
def ours() -> nt.Activations:
    return recorded()


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    return load_file(REFERENCE)


@pytest.mark.parametrize("names", [None, NAMES], ids=["guessed", "named"])
def test_a_faithful_port_agrees_everywhere(ours: nt.Activations, names: Any) -> None:
    found = nt.compare(ours, REFERENCE, names)
    assert found.agrees
    assert found.first_difference is None
    assert len(found.rows) == 22
    assert {row.verdict for row in found.rows} == {"agrees"}
    assert all(row.measure is not None and row.measure.max_rel < 1e-5 for row in found.rows)
    assert all(row.input is not None and row.input.agrees for row in found.rows)
    # Our GELU is a function, theirs a module.
    assert found.unused == ("blocks.0.mlp.1", "blocks.1.mlp.1")
    assert "all 22 activations that were compared agree" in str(found)


def test_rows_are_in_the_order_in_which_modules_returned(ours: nt.Activations) -> None:
    names = [row.name for row in nt.compare(ours, REFERENCE).rows]
    assert names[:4] == ["tokens", "blocks.0.norm1", "blocks.0.attention.qkv", "blocks.0.attention.proj"]
    assert names[-3:] == ["norm", "head", "(model)"]


@pytest.mark.parametrize("names", [None, NAMES], ids=["guessed", "named"])
@pytest.mark.parametrize(
    ("mistake", "first", "input_agrees"),
    [
        ({"eps": 1e-3}, "blocks.1.norm1", True),
        ({"act": "gelu_tanh"}, "blocks.1.mlp.down", False),
        ({"act": "relu"}, "blocks.1.mlp.down", False),
        ({"bias": False}, "blocks.1.mlp.down", True),
        ({"attention": {"causal": False}}, "blocks.1.attention.proj", False),
        ({"attention": {"scale": 0.25}}, "blocks.1.attention.proj", False),
    ],
    ids=["epsilon", "tanh form", "other activation", "no bias", "no mask", "scale"],
)
def test_the_broken_layer_is_the_first_difference(
    mistake: dict[str, Any], first: str, input_agrees: bool, names: Any
) -> None:
    found = nt.compare(recorded(**mistake), REFERENCE, names, rtol=5e-5)
    assert found.first_difference is not None
    assert found.first_difference.name == first
    assert found.first_difference.row.input is not None
    assert found.first_difference.row.input.agrees is input_agrees
    before = [row.name for row in found.rows[: found.first_difference.agreed]]
    assert all(name.startswith(("tokens", "blocks.0", "blocks.1")) for name in before)
    assert "blocks.0" in before


def test_a_mistake_inside_a_module_that_is_compared_as_a_whole(ours: nt.Activations) -> None:
    names = {"blocks.*.attention": "blocks.*.attn"}
    found = nt.compare(recorded(attention={"causal": False}), REFERENCE, names).first_difference
    assert found is not None
    assert found.name == "blocks.1.attention"
    assert found.last == "blocks.1.norm1"
    assert found.between == ("blocks.1.attention.qkv", "blocks.1.attention.proj")
    assert "the cause lies inside it" in str(found)
    # The last query sees every key with or without the mask.
    assert "it differs only at 0 to 3 along s, of 5" in found.observations


def test_a_mistake_between_modules_shows_in_what_comes_in() -> None:
    found = nt.compare(recorded(scaled=False), REFERENCE, NAMES).first_difference
    assert found is not None
    assert found.name == "blocks.0.norm2"
    # A normalisation takes the missing scale out again, so its result says nothing.
    assert found.earlier == "blocks.0.norm1"


def test_swapped_names_in_a_group_are_seen_as_another_order() -> None:
    mistaken = recorded(attention={"qkv": "(heads three hd) d"})
    found = nt.compare(mistaken, REFERENCE, NAMES).first_difference
    assert found is not None
    assert found.name == "blocks.1.attention.qkv"
    assert "both have the same values in another order" in found.observations


def test_the_guess_can_be_given_back_as_names(ours: nt.Activations) -> None:
    guessed = nt.compare(ours, REFERENCE)
    assert guessed.names == {
        "blocks.*.attention.qkv": "blocks.*.attn.qkv",
        "blocks.*.attention.proj": "blocks.*.attn.proj",
        "blocks.*.attention": "blocks.*.attn",
        "blocks.*.mlp.up": "blocks.*.mlp.0",
        "blocks.*.mlp.down": "blocks.*.mlp.2",
    }
    named = nt.compare(ours, REFERENCE, guessed.names)
    assert [(row.name, row.reference) for row in named.rows] == [(row.name, row.reference) for row in guessed.rows]
    assert all(row.guessed for row in guessed.rows)
    assert not any(row.guessed for row in named.rows)


@pytest.mark.parametrize("form", ["file", "mapping", "npz"])
def test_a_reference_may_be_a_file_or_arrays(
    form: str, tmp_path: Path, ours: nt.Activations, theirs: dict[str, np.ndarray]
) -> None:
    source: Any = {"file": REFERENCE, "mapping": theirs, "npz": tmp_path / "reference.npz"}[form]
    if form == "npz":
        np.savez(source, **theirs)  # type: ignore[arg-type]
    assert nt.compare(ours, source, NAMES).agrees


def test_saved_activations_compare_as_the_live_ones(tmp_path: Path, ours: nt.Activations) -> None:
    ours.save(tmp_path / "ours.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]
    saved = nt.compare(tmp_path / "ours.safetensors", REFERENCE, NAMES)
    assert saved.to_json() == nt.compare(ours, REFERENCE, NAMES).to_json()


def test_half_precision_gets_a_wider_tolerance() -> None:
    ours = {"x": nt.wrap(jnp.linspace(1, 2, 8).astype("bfloat16"), "d")}
    reference = {"x": np.linspace(1, 2, 8, dtype=np.float32)}
    assert nt.compare(ours, reference).agrees
    assert not nt.compare(ours, reference, rtol=1e-4).agrees


def test_what_fills_a_mask_is_not_compared_as_a_number() -> None:
    lowest = float(np.finfo(np.float32).min)
    ours = {"scores": nt.wrap(np.array([1.0, 2.0, lowest], np.float32), "keys")}
    assert nt.compare(ours, {"scores": np.array([1.0, 2.0, -np.inf])}).agrees
    assert not nt.compare(ours, {"scores": np.array([1.0, 2.1, -np.inf])}).agrees
    assert not nt.compare(ours, {"scores": np.array([1.0, 2.0, np.inf])}).agrees


def test_values_that_are_not_numbers_never_agree_with_numbers() -> None:
    ours = {"x": nt.wrap(np.array([1.0, np.nan], np.float32), "d")}
    found = nt.compare(ours, {"x": np.array([1.0, 2.0])}).first_difference
    assert found is not None
    assert found.observations == ("ours has 1 values that are NaN or infinite, the reference has none",)
    assert nt.compare(ours, {"x": np.array([1.0, np.nan])}).agrees


@pytest.mark.parametrize(
    ("change", "observation"),
    [
        (lambda x: 8 * x, "ours is 0.125 times the reference"),
        (lambda x: -x, "ours is the reference with the opposite sign"),
        (lambda x: x + 1, "ours is the reference plus -1"),
        (lambda x: x + np.arange(4, dtype=np.float32), "ours minus the reference depends on d alone"),
        (lambda x: x * np.arange(1, 4, dtype=np.float32)[:, None], "along d ours is a multiple of the reference"),
        (lambda x: x[:, ::-1], "both have the same values in another order"),
    ],
)
def test_what_a_difference_looks_like_is_said(change: Any, observation: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    found = nt.compare({"x": nt.wrap(x, "s d")}, {"x": np.ascontiguousarray(change(x))}, {}).first_difference
    assert found is not None
    assert any(seen.startswith(observation) for seen in found.observations)


def test_all_orders_of_axes_that_fit_are_tried_and_counted() -> None:
    x = nt.wrap(np.random.default_rng(0).standard_normal((3, 3, 2), dtype=np.float32), "s heads hd")
    (row,) = nt.compare({"q": x}, {"q": x.numpy("heads s hd")}).rows
    assert (row.verdict, row.axes, row.layouts) == ("agrees", "heads s hd", 2)


def test_one_of_several_results_is_compared_with_what_came_in() -> None:
    x = np.ones(3, np.float32)
    ours = {name: nt.wrap(x, "d") for name in ("mlp:input", "mlp[0]", "mlp[1].cache")}
    (row,) = nt.compare(ours, {"ffn:input": x, "ffn": x}, {"mlp": "ffn"}).rows
    assert (row.name, row.reference, row.verdict) == ("mlp[0]", "ffn", "agrees")
    assert row.input is not None


def test_shapes_that_do_not_fit_are_a_difference() -> None:
    ours = {"x": nt.wrap(np.ones((2, 3), np.float32), "s d")}
    found = nt.compare(ours, {"x": np.ones((2, 4))}, {})
    assert not found.agrees
    assert "shapes do not fit: ours (s=2, d=3), reference (2, 4)" in str(found)


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        ({"blocks.*.mlp": "blocks.*.ffn"}, nt.InputError, "the reference has no 'blocks.0.ffn'"),
        ({"layers.*.mlp": "blocks.*.mlp"}, nt.InputError, "none of our activations is called 'layers.*.mlp'"),
        ({"blocks.0.mlp": "blocks.*.mlp"}, nt.InputError, "has more stars than 'blocks.0.mlp'"),
        ({"norm": 3}, nt.InputError, "'norm' is mapped to something that is not a name"),
        ({"norm": ("norm", "s b d")}, nt.AxisError, "'norm' does not have the axes that were given"),
        ({"norm": ("norm", "b t d")}, nt.AxisError, "names 't', which the tensor does not have"),
        ({"norm": ("norm", "b (s d")}, nt.AxisError, "is never closed"),
    ],
)
def test_names_that_are_wrong_are_errors(ours: nt.Activations, names: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        nt.compare(ours, REFERENCE, names)
    assert message in str(error.value)


def test_the_sides_are_not_mixed_up(ours: nt.Activations) -> None:
    with pytest.raises(nt.InputError, match="the reference comes second"):
        nt.compare(REFERENCE, ours)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(nt.InputError, match="no activation of ours has a counterpart"):
        nt.compare({"x": nt.wrap(np.ones(3, np.float32), "d")}, {"y": np.ones(4)})


@pytest.mark.parametrize("tolerance", [{"rtol": -1.0}, {"atol": float("nan")}])
def test_tolerances_are_checked(ours: nt.Activations, tolerance: dict[str, Any]) -> None:
    with pytest.raises(nt.InputError, match="is no tolerance"):
        nt.compare(ours, REFERENCE, **tolerance)


@pytest.mark.parametrize("name", ["reference.npz", "reference.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_files_are_refused(tmp_path: Path, ours: nt.Activations, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((nt.CheckpointError, nt.InputError)):
        nt.compare(ours, tmp_path / name)


@pytest.mark.parametrize("stated", ["[", "3", "[" * 100_000, '{"axes": {"x": "((d"}}'])
def test_damaged_metadata_is_refused(tmp_path: Path, stated: str) -> None:
    path = tmp_path / "ours.safetensors"
    save_file({"x": np.ones(3, np.float32)}, path, metadata={METADATA: stated})
    with pytest.raises(nt.CheckpointError):
        nt.compare(path, {"x": np.ones(3)})
