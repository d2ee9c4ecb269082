"""The reference's side: one file that is copied to where PyTorch is, and what it wrote there."""

import json
import subprocess
import sys
from pathlib import Path

import namedtensor as nt
from namedtensor.porting import torch_dump
from tests.porting.scorer import IDS, REFERENCE


def test_the_dumper_stands_alone(tmp_path: Path) -> None:
    copy = tmp_path / "torch_dump.py"
    copy.write_text(Path(torch_dump.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    probe = "import sys, torch_dump; print(sorted({'jax', 'namedtensor', 'numpy', 'torch'} & sys.modules.keys()))"
    # -S: without what is installed.
    result = subprocess.run([sys.executable, "-S", "-c", probe], cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_it_wrote_results_and_inputs_in_order() -> None:
    ckpt = nt.Checkpoint.open(REFERENCE)
    order = json.loads(ckpt.metadata[torch_dump.METADATA])["order"]
    assert order[:3] == ["tokens", "blocks.0.norm1", "blocks.0.attn.qkv"]
    assert order[-2:] == ["head", "(model)"]
    assert ckpt.info("blocks.1.attn.qkv").shape == (2, 5, 36)
    assert ckpt.info("blocks.1.attn.qkv:input").shape == (2, 5, 12)
    ids = nt.load(ckpt.weight("(model):input", "b s"), progress=False).result()
    assert ids.numpy("b s").tolist() == IDS
