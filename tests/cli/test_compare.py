"""`namedtensor compare`."""

import json
from pathlib import Path

import pytest

from tests.porting.scorer import REFERENCE, recorded

MAP = """\
[names]
"blocks.*.attention" = "blocks.*.attn"
"blocks.*.attention.qkv" = ["blocks.*.attn.qkv", "b s (three heads hd)"]
"""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dumps")
    recorded().save(path / "ours.safetensors")
    recorded(act="relu").save(path / "broken.safetensors")
    (path / "map.toml").write_text(MAP)
    return path


def test_agreement_is_exit_code_0(cli, dumps):
    done = cli("compare", dumps / "ours.safetensors", REFERENCE)
    assert done.code == 0
    assert "all 22 activations that were compared agree" in done.out


def test_a_difference_is_exit_code_1_and_named(cli, dumps):
    done = cli("compare", dumps / "broken.safetensors", REFERENCE, "--map", dumps / "map.toml")
    assert done.code == 1
    assert "first difference: blocks.1.mlp (reference: blocks.1.mlp)" in done.out
    assert done.err == ""


def test_json_has_every_row(cli, dumps):
    done = cli("compare", dumps / "broken.safetensors", REFERENCE, "--json")
    document = json.loads(done.out)
    assert done.code == 1
    assert document["first_difference"]["name"] == "blocks.1.mlp.down"
    assert len(document["rows"]) == 22


def test_all_shows_every_row(cli, dumps):
    done = cli("compare", dumps / "ours.safetensors", REFERENCE, "--all")
    assert done.out.count(" agrees\n") == 22


def test_tolerance_is_the_callers(cli, dumps):
    assert cli("compare", dumps / "broken.safetensors", REFERENCE, "--rtol", "10").code == 0


def test_the_dumper_is_written(cli, tmp_path):
    done = cli("compare", "--write-dumper", tmp_path / "torch_dump.py")
    assert done.code == 0
    assert "def dump_torch(" in (tmp_path / "torch_dump.py").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[names", "not valid TOML"),
        ("", "it needs one table, [names]"),
        ('[names]\n"blocks.*.attn" = "blocks.*.attn"', "none of our activations is called 'blocks.*.attn'"),
        ('[names]\n"norm" = 3', "'norm' is mapped to something that is not a name"),
    ],
)
def test_a_bad_map_is_exit_code_3(cli, dumps, tmp_path, content, message):
    (tmp_path / "map.toml").write_text(content)
    done = cli("compare", dumps / "ours.safetensors", REFERENCE, "--map", tmp_path / "map.toml")
    assert done.code == 3
    assert message in done.err
    assert done.out == ""


def test_a_missing_file_is_exit_code_3(cli, dumps):
    done = cli("compare", dumps / "ours.safetensors", dumps / "nowhere.npz")
    assert done.code == 3
    assert "nowhere.npz" in done.err
