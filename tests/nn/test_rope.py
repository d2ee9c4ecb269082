import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import namedtensor as nt
from namedtensor import nn
from tests.nn._golden import MODES, ROOT, arrays

CASES = {case["name"]: case for case in json.loads((ROOT / "nn/rope.json").read_text())}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_equal_transformers(name):
    case = CASES[name]
    rope = nn.Rope.from_config(case["config"], case["head_dim"])
    np.testing.assert_allclose(rope.frequencies, case["inv_freq"], rtol=5e-7)
    assert rope.scale == pytest.approx(case["attention_scaling"], rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_the_turned_vectors_equal_transformers(mode):
    a = arrays("nn/rope_applied.npz")
    rope = nn.Rope.from_config(CASES["yarn"]["config"], 16)
    x = nt.wrap(a["x"], "b heads s hd").transpose("s hd b heads")
    y = MODES[mode](rope)(x, nt.wrap(a["positions"].astype(np.int32), "s"))
    np.testing.assert_allclose(y.numpy("b heads s hd"), a["out"], rtol=1e-4, atol=1e-5)


def test_rows_may_stand_at_positions_of_their_own():
    rope = nn.Rope.default(8)
    x = nt.wrap(np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32), "b s hd")
    positions = np.array([[0, 1, 2], [7, 8, 9]], np.int32)
    both = rope(x, nt.wrap(positions, "b s")).numpy("b s hd")
    for row in range(2):
        one = rope(x.index("b", row), nt.wrap(positions[row], "s")).numpy("s hd")
        np.testing.assert_allclose(both[row], one, rtol=1e-6)


def test_interleaved_pairs_are_the_same_rotation_of_reordered_components():
    halves, interleaved = nn.Rope.default(8), nn.Rope.default(8, interleaved=True)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    positions = nt.arange("s", 5)
    a = halves(nt.wrap(x, "s hd"), positions).numpy("s hd")
    b = interleaved(nt.wrap(x.reshape(5, 2, 4), "s two pair").merge("pair two -> hd"), positions)
    np.testing.assert_allclose(b.split("hd", "pair two", two=2).numpy("s (two pair)"), a, rtol=1e-6)


def test_scores_depend_on_the_distance_alone():
    rope = nn.Rope.default(16)
    q, k = (nt.wrap(np.random.default_rng(i).normal(size=16).astype(np.float32), "hd") for i in range(2))

    def score(i: int, j: int) -> float:
        at = lambda x, p: rope(x.broadcast(s=1), nt.wrap(np.array([p], np.int32), "s"))  # noqa: E731
        return float(at(q, i).dot(at(k, j), "s hd").item())

    assert score(3, 1) == pytest.approx(score(103, 101), rel=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), rel=1e-2)


def test_half_types_are_turned_in_f32():
    rope = nn.Rope.default(16)
    x = nt.wrap(jnp.asarray(np.random.default_rng(0).normal(size=(4, 16)), jnp.bfloat16), "s hd")
    positions = nt.wrap(np.array([0, 1, 1000, 4095], np.int32), "s")
    wide = rope(x.cast("float32"), positions).cast("bfloat16")
    np.testing.assert_array_equal(rope(x, positions).numpy("s hd"), wide.numpy("s hd"))


def test_it_is_configuration_without_weights():
    assert jax.tree.leaves(nn.Rope.default(8)) == []


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "mrope", "su", 7])
def test_other_types_are_refused_by_name(kind):
    with pytest.raises(nt.ModelError, match=f"type {kind!r} is not implemented"):
        nn.Rope.from_config({"rope_scaling": {"rope_type": kind, "factor": 2.0}}, 16)


@pytest.mark.parametrize(
    ("scaling", "problem"),
    [
        ({"type": "linear"}, "needs a number 'factor'"),
        ({"type": "linear", "factor": 0.5}, "factor must be at least 1"),
        ({"type": "linear", "factor": float("nan")}, "'factor', not nan"),
        ({"rope_type": "llama3", "factor": 8.0}, "'original_max_position_embeddings'"),
        ({"rope_type": "yarn", "factor": "8", "original_max_position_embeddings": 64}, "'factor', not '8'"),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": float("inf")}, "not inf"),
        ({"rope_type": "linear", "factor": 10**400}, "needs a number 'factor'"),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 0}, "original_context"),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 0.5}, "beta_fast"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ([1], "must hold an object"),
    ],
)
def test_values_out_of_range_are_refused_by_name(scaling, problem):
    with pytest.raises(nt.ModelError, match=problem):
        nn.Rope.from_config({"rope_scaling": scaling, "rope_theta": 10000.0}, 16)


def test_sizes_that_do_not_pair_up_are_refused():
    with pytest.raises(nt.ModelError, match="cannot be divided into pairs"):
        nn.Rope.default(7)
    with pytest.raises(nt.AxisError, match="'hd' has size 6, and there are 4 frequencies"):
        nn.Rope.default(8)(nt.ones("s hd", s=2, hd=6), nt.arange("s", 2))
