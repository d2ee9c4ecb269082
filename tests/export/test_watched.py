"""Archives of every kind of task on every CPU level of this machine, their program watched for what it does to memory.

scripts/check-memory has the program and says what watches over it; a report is an exit status of its own, or text
on stderr. Without it there is nothing here that the other tests do not see.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from namedtensor import zoo
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from tests.export import test_zoo
from tests.export.running import WATCHED, run
from tests.export.unpack import unpack

LEVELS = ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4"]
CASES: dict[str, list[object]] = {
    "digits": [*test_zoo.SCANS],
    "shakespeare": ["--prompt", "ROMEO:", "--temperature", 0.8, "--top-k", 20, "--top-p", 0.9, "--max-tokens", 5],
    "bert": [*test_zoo.TEXTS],
    "mobilenet": [*test_zoo.IMAGES],
}

pytestmark = [
    pytest.mark.skipif(not WATCHED, reason="for scripts/check-memory"),
    pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner"),
]


@pytest.fixture(scope="module", params=CASES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of a model, small where its weights are not real ones."""
    make, options, _ = test_zoo.CASES.get(request.param, (None, [], []))
    directory = tmp_path_factory.mktemp(request.param)
    file = zoo.find(request.param)
    packed = directory / "archive.tar.zst"
    source = make(directory / "weights") if make else None
    archive.build(file.program(source, file.parse(options)), packed, LEVELS)
    return unpack(packed, directory)


@pytest.mark.parametrize("level", LEVELS)
def test_a_watched_program_answers_and_nothing_is_reported(program: Path, level: str) -> None:
    found = run(program, *CASES[program.name], "--target", level, "--json")
    if "this processor has no" in found.stderr:
        pytest.skip(f"no {level} here")
    assert (found.returncode, found.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(found.stdout)
    assert answer["task"]
