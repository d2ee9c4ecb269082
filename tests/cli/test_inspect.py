"""`inspect`: what a checkpoint holds, and what a model is made of and costs. No weight is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from namedtensor.checkpoint import Checkpoint
from namedtensor.cli import _stored
from tests.cli.conftest import Cli

LLAMA = Path(__file__).parents[1] / "golden" / "llama" / "llama32-tied"


def test_a_checkpoint_as_a_table_with_layers_folded(cli: Cli) -> None:
    result = cli("inspect", LLAMA)
    assert (result.code, result.err) == (0, "")
    first, *rows = result.out.splitlines()
    assert first.startswith(f"{LLAMA}: 29 tensors, 71.8 k parameters, 144 kB as bf16")
    assert [row.split() for row in rows if "mlp.down_proj" in row] == [
        ["model.layers.0-2.mlp.down_proj.weight", "3", "×", "bf16", "48", "×", "80", "23.0", "kB"]
    ]
    every = cli("inspect", LLAMA, "--all").out
    assert "model.layers.1.mlp.down_proj.weight" in every


def test_a_checkpoint_for_a_machine(cli: Cli) -> None:
    document = cli("inspect", LLAMA, "--json").json
    assert len(document["tensors"]) == 29
    assert document["bytes"] == sum(tensor["bytes"] for tensor in document["tensors"])
    assert {"name": "model.norm.weight", "shape": [48], "dtype": "bfloat16", "format": "bf16", "bytes": 96} in document[
        "tensors"
    ]


def test_only_names_that_differ_in_numbers_alone_and_leave_no_gap_are_folded(tmp_path: Path) -> None:
    names = {"a.0.w": (2,), "a.1.w": (2,), "a.2.w": (3,), "b.0.0.w": (2,), "b.0.1.w": (2,), "b.1.0.w": (2,)}
    names |= {"c.7.x": (2,), "c.9.x": (2,), "v2.w": (2,), "d#.1": (2,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in names.items()}, tmp_path / "m.safetensors")
    checkpoint = Checkpoint.open(tmp_path / "m.safetensors")
    rows = _stored.fold((name, checkpoint.info(name)) for name in checkpoint.names())
    assert {(row.name, row.times) for row in rows} == {
        ("a.0-1.w", 2),
        ("a.2.w", 1),
        ("b.0.0.w", 1),
        ("b.0.1.w", 1),
        ("b.1.0.w", 1),
        ("c.{7,9}.x", 2),
        ("v2.w", 1),
        ("d#.1", 1),
    }


def test_a_model_as_a_tree_with_named_axes(cli: Cli, model: Path) -> None:
    result = cli("inspect", model, "--chip", "h100")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:2] == [
        "stack  Stack  32 parameters, 128 B",
        "└── layers.0-1  2 × Layer  w (d=4, e=4)  float32  64 B",
    ]
    (row,) = [line.split() for line in lines if line.startswith("forward")]
    # Two products of (2, 4) and (4, 4), 2 * 32 * 2; weights 2 * 64 bytes; x and y.
    assert row == ["forward", "x", "(b=2,", "d=4)", "float32", "128", "128", "B", "0", "B", "64", "B", *row[-3:]]
    assert row[-1] == "memory"
    assert "h100: NVIDIA H100 SXM; 67.0 TFLOP/s in float32, 3.35 TB/s (NVIDIA H100 Tensor Core GPU datasheet)" in lines


def test_a_model_for_a_machine(cli: Cli, model: Path) -> None:
    run = ("inspect", model, "--set", "two_entries=true", "--chip", "h100", "--chip", "tpu-v5e", "--json")
    document = cli(*run).json
    assert [entry["name"] for entry in document["entries"]] == ["forward.b2", "forward.b8", "step"]
    forward, larger, step = document["entries"]
    assert larger["flops"] == 4 * forward["flops"]
    assert step["state_bytes"] == 32
    assert forward["bounds"]["h100"] == {"seconds": pytest.approx(192 / 3.35e12), "limit": "memory"}
    assert document["weights"][1] == {
        "name": "layers.1.w",
        "axes": ["d", "e"],
        "shape": [4, 4],
        "dtype": "float32",
        "bytes": 64,
        "stored_as": "layers.1.w",
    }
    assert [entry["name"] for entry in cli(*run, "--entry", "step").json["entries"]] == ["step"]


def test_the_processor_here_is_measured(cli: Cli, model: Path) -> None:
    (chip,) = cli("inspect", model, "--json").json["chips"].values()
    assert chip["source"] == "measured just now"
    assert chip["memory_bandwidth"] > 1e8
    assert chip["flops_per_second"] > 1e8


def test_config_and_header_are_enough(cli: Cli, tmp_path: Path) -> None:
    shutil.copy(LLAMA / "config.json", tmp_path)
    with (LLAMA / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    size = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)  # a hole where the weights were
    result = cli("inspect", "llama", "--weights", tmp_path, "--chip", "h100", "--entry", "decode")
    assert (result.code, result.err) == (0, "")
    assert "layers.0-2  3 × Block" in result.out
    assert "(vocab=192, d=48)" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.safetensors"], 3, "missing.safetensors: no such file or directory"),
        (["./missing"], 3, "./missing: no such file or directory"),
        (["digts"], 2, "there is no model 'digts' in the zoo: did you mean 'digits'?"),
        (["digits", "--chip", "h1000"], 2, "there is no chip 'h1000'; there are cpu-native, a100"),
        (["digits", "--entry", "clasify"], 2, "digits has no entry point 'clasify'; it has classify"),
        (["digits", "--all"], 2, "--all is for checkpoints"),
        (["damaged.safetensors"], 3, "damaged.safetensors"),
        (["damaged.safetensors", "--chip", "h100"], 2, "damaged.safetensors is a checkpoint; --chip is for models"),
    ],
)
def test_what_is_wrong_stands_in_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 64)
    result = cli("inspect", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err.splitlines()[0]
