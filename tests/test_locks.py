"""The lock files: everything pinned and hashed, and no registry named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def pinned(lock: Path) -> dict[str, str]:
    """Package to version."""
    found = re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(found)


def test_there_are_locks_for_the_environment_the_runner_the_demo_and_the_training() -> None:
    parts = ("", "-demo", "-native", "-train")
    assert {lock.name for lock in LOCKS} == {f"requirements{part}.lock" for part in parts}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_and_has_hashes(lock: Path) -> None:
    text = re.sub(r"#.*", "", lock.read_text(encoding="utf-8"))
    for requirement in re.sub(r"\\\n", " ", text).splitlines():
        if requirement.strip():
            assert re.match(r"[a-z0-9-]+==\S+( ;[^\\]*?)?( +--hash=sha256:[0-9a-f]{64})+\s*$", requirement)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_registry_is_named(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_training_uses_the_versions_of_the_environment() -> None:
    environment, training = pinned(ROOT / "requirements.lock"), pinned(ROOT / "requirements-train.lock")
    shared = environment.keys() & training.keys()
    assert "numpy" in shared
    assert {name: training[name] for name in shared} == {name: environment[name] for name in shared}
