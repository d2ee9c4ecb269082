"""The check of archives beside a GPU, as far as it goes without one: the CPU stands for it, or a program's double."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from namedtensor import zoo
from namedtensor._errors import InputError
from namedtensor.export import archive
from scripts import gpu_archives

BASELINE = "cpu:x86-64-v2"

# A program that generates: on the accelerator as its `double.json` says, and 1, 2, 3 on the CPU.
DOUBLE = """#!{python}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
value = lambda name: arguments[arguments.index(name) + 1] if name in arguments else None
told = json.loads(Path(__file__).with_name("double.json").read_text())
target = value("--target")
if target != "cpu" and value("--plugin") != told["plugin"]:
    sys.exit("double: error: no plugin")
file = value("--logits")
if file:
    import numpy as np
    rows = len(value("--prompt-ids").split(","))
    logits = np.zeros((rows, 8), np.float32)
    logits[:, 1:4] = [8.0, 7.99, 2.0]
    np.save(file, logits + (told["off"] if target != "cpu" else 0))
greedy = value("--temperature") == "0"
ids = [1, 2, 3] if target == "cpu" or not greedy else told["ids"]
if "--seed" in arguments and target != "cpu" and told["restless"]:
    calls = Path(__file__).with_name("calls")
    calls.write_text((calls.read_text() if calls.exists() else "") + "x")
    ids = [1, len(calls.read_text())]
print(json.dumps({{"prompt_ids": [5, 6], "ids": ids, "tokens_per_second": 100.0}}))
"""


@pytest.fixture
def program(tmp_path):
    """A function that makes a double: its answers on the accelerator."""

    def make(ids=(1, 2, 3), off=0.0, restless=False, plugin="/plugin.so") -> gpu_archives.Program:
        path = tmp_path / "double"
        path.write_text(DOUBLE.format(python=sys.executable))
        path.chmod(0o755)
        told = {"ids": list(ids), "off": off, "restless": restless, "plugin": "/plugin.so"}
        (tmp_path / "double.json").write_text(json.dumps(told))
        return gpu_archives.Program(path, "cuda:h200", Path(plugin))

    return make


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(gpu_archives, "STARTS", 1)
    monkeypatch.setattr(gpu_archives, "SCANS", gpu_archives.SCANS[:3])
    monkeypatch.setattr(gpu_archives, "SEEDS", (0,))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A directory with an archive of digits, for CPUs."""
    directory = tmp_path_factory.mktemp("prepared")
    program = zoo.find("digits").program(None, {})
    archive.build(program, directory / "digits.tar.zst", [BASELINE, gpu_archives.CPU], plugins=False)
    return directory


def test_an_archive_is_run_on_both_targets_and_compared(prepared, tmp_path, capsys):
    rows = gpu_archives.run(prepared, ["digits"], BASELINE, 1e-3)
    assert [(row.archive, row.agrees) for row in rows] == [("digits", True)]
    assert rows[0].finding.startswith("0 of 3 labels differ, logits by ")
    assert all(0 < seconds < 60 for seconds in rows[0].first_output.values())
    gpu_archives.show(rows, {"device": "none"}, tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["device"], written["archives"][0]["archive"]) == ("none", "digits")
    assert set(written["archives"][0]["first_output"]) == {BASELINE, "cpu"}
    assert "equal" in capsys.readouterr().out
    # Whatever the numbers, no difference is allowed below nothing.
    assert not gpu_archives.run(prepared, ["digits"], BASELINE, -1.0)[0].agrees


def test_what_cannot_be_run_is_one_line(prepared, tmp_path):
    with pytest.raises(gpu_archives.Refused, match=r"^digits on cuda:h200: digits: error: .*has nothing for cuda:h200"):
        gpu_archives.run(prepared, ["digits"], "cuda:h200", 1e-3)
    with pytest.raises(InputError, match="not an archive that can be read"):
        gpu_archives.run(tmp_path, ["digits"], BASELINE, 1e-3)


def test_equal_texts_agree_and_only_the_accelerator_is_given_the_plugin(program):
    row = gpu_archives.shakespeare(program(), 1e-2)
    assert row.agrees
    assert row.finding == "logits differ by 0.0e+00, greedy text of 3 tokens equal, 1 of 1 seeds give the CPU's text"
    assert row.tokens_per_second == {"cuda:h200": 100.0, "cpu": 100.0}
    with pytest.raises(gpu_archives.Refused, match="double on cuda:h200: double: error: no plugin"):
        gpu_archives.shakespeare(program(plugin="/another.so"), 1e-2)


def test_a_near_tie_may_part_texts_and_nothing_else_may(program):
    row = gpu_archives.shakespeare(program(ids=(2, 2, 3)), 1e-2)
    assert row.agrees
    assert "parts at token 0, where the two choices are 1.3e-03 apart" in row.finding
    assert not gpu_archives.shakespeare(program(ids=(3, 2, 3)), 1e-2).agrees
    # The CPU went on where the accelerator ended.
    assert not gpu_archives.shakespeare(program(ids=(1, 2)), 1e-2).agrees


def test_logits_that_differ_and_seeds_that_do_not_repeat_are_found(program):
    assert not gpu_archives.shakespeare(program(off=0.5), 1e-2).agrees
    row = gpu_archives.shakespeare(program(restless=True), 1e-2)
    assert not row.agrees
    assert "seed 0 gives another text the second time" in row.finding


@pytest.mark.parametrize(
    ("found", "expected", "at"),
    [([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1], [1, 3], 1), ([1, 2], [1], 1), ([], [], None)],
)
def test_where_texts_part(found, expected, at):
    assert gpu_archives.parting(found, expected) == at


def test_the_distance_of_what_is_no_number_is_infinite():
    assert gpu_archives.distance([1.0, np.nan], [1.0, 2.0]) == np.inf
    assert gpu_archives.distance([1.0], [1.0, 2.0]) == np.inf
    assert gpu_archives.distance([1.0, 3.0], [1.0, 2.0]) == 0.5


def test_the_plugin_is_the_installed_one(tmp_path, monkeypatch):
    for path in ("jax_plugins/xla_cuda13/xla_cuda_plugin.so", "nvidia/cu13/lib/libcudart.so.13"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    for path in ("jax_plugins", "jax_plugins/xla_cuda13", "nvidia"):
        (tmp_path / path / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("jax_plugins", "nvidia")]:
        monkeypatch.delitem(sys.modules, name)
    plugin, libraries = gpu_archives.installed()
    assert plugin == tmp_path / "jax_plugins/xla_cuda13/xla_cuda_plugin.so"
    assert libraries == (tmp_path / "nvidia/cu13/lib",)
    plugin.unlink()
    with pytest.raises(gpu_archives.Refused, match="not installed here"):
        gpu_archives.installed()
