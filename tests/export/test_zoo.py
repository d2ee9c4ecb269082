"""Every model of the zoo, small, with weights of tests: an archive answers what `namedtensor run` answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from namedtensor import zoo
from namedtensor.cli import main
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from tests.export.running import run
from tests.export.unpack import unpack
from tests.golden import seeded

GOLDEN = Path(__file__).parents[1] / "golden"
SCANS = sorted((Path(__file__).parents[2] / "models" / "digits" / "scans").glob("*.png"))
IMAGES = [GOLDEN / "images" / name for name in ("scene.png", "drawing.png")]
TEXTS = ["a cat", "the law on the dog", "a dog on a cat"]

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")


def bert(directory: Path) -> Path:
    """A BERT of transformers' making, with a tokenizer of whole words."""
    shutil.copytree(GOLDEN / "bert" / "gelu", directory)
    words = ["[PAD]", "[UNK]", "a", "cat", "dog", "law", "the", "on"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def mobilenet(directory: Path) -> Path:
    directory.mkdir()
    shapes = json.loads((GOLDEN / "mobilenet" / "timm-035" / "parameters.json").read_text())
    weights = {name: seeded.convolutional(name, shape) for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors")
    shutil.copy(GOLDEN / "mobilenet" / "timm-035" / "config.json", directory)
    return directory


def llama(directory: Path) -> Path:
    return GOLDEN / "llama" / "llama31-gqa"


CASES: dict[str, tuple[Callable[[Path], Path] | None, list[str], list[object]]] = {
    "digits": (None, [], [*SCANS]),
    "bert": (bert, ["lengths=8", "batches=2"], [*TEXTS]),
    "minilm": (bert, ["lengths=8", "batches=1"], [*TEXTS]),
    "mobilenet": (mobilenet, [], [*IMAGES]),
}


class Pair:
    """A model in its archive, and the same run by `namedtensor run`."""

    def __init__(self, name: str, source: Path | None, options: list[str], directory: Path, capsys: Any) -> None:
        file = zoo.find(name)
        packed = directory / f"{name}.tar.zst"
        archive.build(file.program(source, file.parse(options)), packed, ["cpu:x86-64-v2"])
        self.program = unpack(packed, directory / "root")
        self._command = ["run", name, *(["--weights", str(source)] if source else [])]
        self._command += [part for option in options for part in ("--set", option)]
        self._capsys = capsys

    def both(self, *arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The documents that the archive and `namedtensor run` print."""
        found = run(self.program, *arguments, "--json")
        assert (found.returncode, found.stderr) == (0, "")
        self._capsys.readouterr()
        assert main([*self._command, *map(str, arguments), "--json"]) == 0
        wanted = json.loads(self._capsys.readouterr().out)
        del wanted["timing"]
        return json.loads(found.stdout), wanted


def assert_same(found: Any, wanted: Any, place: str = "") -> None:
    """Numbers within 1e-5, of which some are nested in lists, and all else equal."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for key, value in wanted.items():
            assert_same(found[key], value, f"{place}.{key}")
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        assert len(found) == len(wanted), place
        for index, value in enumerate(wanted):
            assert_same(found[index], value, f"{place}[{index}]")
    elif isinstance(wanted, (list, float)) and np.asarray(wanted).dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=place)
    else:
        assert found == wanted, place


@pytest.mark.parametrize("name", CASES)
def test_an_archive_answers_as_namedtensor_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, options, arguments = CASES[name]
    pair = Pair(name, make and make(tmp_path / "weights"), options, tmp_path, capsys)
    together, wanted = pair.both(*arguments)
    assert_same(together, wanted)
    # Alone or beside others, each gets the same.
    alone = json.loads(run(pair.program, arguments[1], "--json").stdout)
    key = "embeddings" if "embeddings" in alone else "images"
    assert_same(alone[key], [wanted[key][1]])


def test_llamas_entry_points_answer_as_namedtensor_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of several sequences at a time no text is made: tensors go in and out, and the cache from one call to the next.
    pair = Pair("llama", llama(tmp_path), ["context=16", "batch=2", "dtype=float32"], tmp_path, capsys)
    inputs = pair.program.parent / "in.safetensors"
    entries = {entry["name"]: entry for entry in json.loads((pair.program / "bundle.json").read_text())["entries"]}
    arguments = entries["decode"]["variants"][0]["arguments"]
    cache = {a["name"]: np.zeros(a["shape"], np.float32) for a in arguments if a["kind"] == "state"}
    generator = np.random.default_rng(2)
    tokens = generator.integers(1, 100, (2, 16), dtype=np.int32)
    start, length = np.zeros(2, np.int32), np.array([5, 3], np.int32)

    save_file({**cache, "tokens": tokens, "start": start, "length": length}, inputs)
    assert_same(*pair.both("--entry", "prefill", "--input", inputs))
    written = pair.program.parent / "out.safetensors"
    for step in range(3):
        entry = "decode" if step else "prefill"
        found = run(pair.program, "--entry", entry, "--input", inputs, "--output", written)
        assert (found.returncode, found.stderr) == (0, "")
        cache = {name: value for name, value in load_file(written).items() if name.startswith("cache.")}
        token, position = generator.integers(1, 100, 2, dtype=np.int32), length + step
        save_file({**cache, "token": token, "position": position.astype(np.int32)}, inputs)
        assert_same(*pair.both("--entry", "decode", "--input", inputs))


def test_no_model_of_the_zoo_is_left_out() -> None:
    # shakespeare is llama with weights of its own.
    assert {*CASES, "llama", "shakespeare"} == set(zoo.names())
