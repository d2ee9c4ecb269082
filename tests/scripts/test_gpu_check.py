"""The check for machines with a GPU, as far as it goes without one: on the CPU, through the same calls."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from scripts import gpu_check
from scripts.gpu_archives import Refused


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits, compiled ahead of time for the CPU."""
    monkeypatch.setattr(gpu_check, "PROGRAMS", {"digits": (None, {})})
    monkeypatch.setattr(gpu_check, "REPEATS", 1)
    (program,) = gpu_check.programs().values()
    compiled = program.lower("cpu")["classify"].stages.compile().runtime_executable()
    serialized = jax.devices("cpu")[0].client.serialize_executable(compiled)
    (tmp_path / "digits.classify.executable").write_bytes(serialized)
    (tmp_path / "check.json").write_text(json.dumps({"target": "cpu", "jax": jax.__version__}))
    return tmp_path


def test_an_executable_made_ahead_of_time_is_run_and_compared(prepared, capsys):
    assert gpu_check.run(prepared, jax.devices("cpu")[0])
    assert "digits classify: equal, 0.0e+00 from jax" in capsys.readouterr().out


def test_results_that_differ_are_found(prepared, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "TOLERANCE", -1.0)
    assert not gpu_check.run(prepared, jax.devices("cpu")[0])
    assert "digits classify: DIFFERENT" in capsys.readouterr().out


def test_executables_of_another_release_are_refused(prepared):
    (prepared / "check.json").write_text(json.dumps({"target": "cpu", "jax": "0.1"}))
    with pytest.raises(Refused, match=r"made by jax 0\.1"):
        gpu_check.run(prepared, jax.devices("cpu")[0])


def test_without_anything_prepared_it_says_so(tmp_path):
    with pytest.raises(Refused, match="holds nothing to check"):
        gpu_check.run(tmp_path, jax.devices("cpu")[0])


def test_without_a_gpu_it_says_so():
    try:
        jax.devices("cuda")
    except RuntimeError:
        with pytest.raises(Refused, match="no NVIDIA GPU"):
            gpu_check.gpu()
    else:
        pytest.skip("there is a GPU here")


@pytest.mark.parametrize(
    ("found", "expected", "distance"),
    [
        (np.array([1, 2], np.float32), np.array([1, 2], np.float32), 0.0),
        (np.array([1, 3], np.float32), np.array([1, 2], np.float32), 0.5),
        (np.array([1, np.nan], np.float32), np.array([1, 2], np.float32), np.inf),
        (np.array([1, 3], np.int32), np.array([1, 2], np.int32), np.inf),
        (np.array([1], np.float32), np.array([1, 2], np.float32), np.inf),
        (np.array([1, 2], np.float64), np.array([1, 2], np.float32), np.inf),
    ],
)
def test_the_distance_of_results(found, expected, distance):
    assert gpu_check.difference(found, expected) == distance
