"""`scripts/check-bazel`: the buildifier that is there, or one fetched by its digest, or a line that says neither is."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.scripts.shell import checkout_of, provide

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check-bazel"
VERSION = next(line.partition("=")[2] for line in SCRIPT.read_text().splitlines() if line.startswith("version="))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the script, and a PATH that has the shell's own tools only."""
    tools = ("dirname", "sed", "mktemp", "mkdir", "rm", "mv", "tar", "gzip", "chmod", "cp", "cat")
    return checkout_of(SCRIPT, tmp_path, tools)


def check(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = checkout / "scripts" / "check-bazel"
    environment = {"PATH": str(checkout / "bin")}
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)


def kept(checkout: Path) -> list[str]:
    return [path.name for path in checkout.glob(".cache/*")]


def test_one_of_the_right_release_is_used_where_it_is(checkout: Path) -> None:
    provide(
        checkout,
        "buildifier",
        f'[ "$1" != --version ] || {{ echo "buildifier version: {VERSION} "; exit; }}; echo "$@"',
    )
    assert check(checkout, "lint").stdout == "-mode=check -lint=warn -r bazel_rules\n"
    assert check(checkout, "format").stdout == "-mode=fix -lint=fix -r bazel_rules\n"


def test_without_one_and_without_npm_a_line_says_so(checkout: Path) -> None:
    provide(checkout, "buildifier", 'echo "buildifier version: 0.1"')
    done = check(checkout, "lint")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1)
    assert f"no buildifier {VERSION} here, and no npm to fetch it; bazel_rules/ is not checked" in done.stderr


def test_without_the_registry_a_line_says_so(checkout: Path) -> None:
    provide(checkout, "openssl", "exit 1")
    provide(checkout, "npm", "exit 1")
    done = check(checkout, "lint")
    assert done.returncode == 0
    assert "npm could not fetch" in done.stderr
    assert kept(checkout) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_what_has_another_digest_is_not_run(checkout: Path) -> None:
    (checkout / "bin" / "openssl").symlink_to(str(shutil.which("openssl")))
    (checkout / "package").mkdir()
    provide(checkout, "ran", "echo it ran")
    shutil.copy(checkout / "bin" / "ran", checkout / "package" / "buildifier-linux_amd64")
    with tarfile.open(checkout / "other.tgz", "w:gz") as tar:
        tar.add(checkout / "package", "package")
    provide(checkout, "npm", f"cp {checkout}/other.tgz .")
    done = check(checkout, "lint")
    assert done.returncode == 1
    assert "has another digest" in done.stderr
    assert "it ran" not in done.stdout
    assert kept(checkout) == []


def test_another_word_is_wrong_usage(checkout: Path) -> None:
    provide(checkout, "buildifier", f'echo "buildifier version: {VERSION}"')
    assert check(checkout, "lnit").returncode == 2
