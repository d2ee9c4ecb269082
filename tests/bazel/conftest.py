"""Bazel, offline, on a copy of the example: one server and one tree for all of these tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from namedtensor.export.archive._build import RUNNER

ROOT = Path(__file__).parents[2]

ONE_TARGET = ("--@namedtensor//platforms:cpu_chips=x86-64-v2",)


@dataclass(frozen=True)
class Bazel:
    """The example's workspace, and Bazel in it."""

    workspace: Path
    environment: Path
    output: Path

    @property
    def digits(self) -> Path:
        return self.workspace / "models" / "digits"

    @property
    def built(self) -> Path:
        return self.workspace / "bazel-bin" / "models" / "digits"

    def __call__(
        self, command: str, *arguments: str, python: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One command for a platform's worth of targets; those after `--` are the program's."""
        split = arguments.index("--") if "--" in arguments else len(arguments)
        python = self.environment / "bin" / "python" if python is None else python
        options = [f"--repo_env=NAMEDTENSOR_PYTHON={python}", *ONE_TARGET, "--nosandbox_debug", "--jobs=2"]
        options += ["--color=no", "--curses=no", "--noshow_progress", f"--execution_log_json_file={self._log}"]
        # What a test changed and the next one finds restored is not made again.
        options.append(f"--disk_cache={self.output / 'cache'}")
        self._log.unlink(missing_ok=True)
        return self.plain(command, *options, *arguments[:split], *arguments[split:], cwd=cwd)

    def plain(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        startup = [
            "--nohome_rc",
            "--host_jvm_args=-Xmx384m",
            f"--output_user_root={self.output}",
            "--max_idle_secs=300",
        ]
        return subprocess.run(
            ["bazel", *startup, *arguments],
            cwd=self.workspace if cwd is None else cwd,
            env={name: value for name, value in os.environ.items() if name != "NAMEDTENSOR_PYTHON"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def succeeds(self, command: str, *arguments: str, cwd: Path | None = None) -> str:
        """Its standard output. Fails the test with what Bazel said where it failed."""
        done = self(command, *arguments, cwd=cwd)
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
        return done.stdout

    def fails(self, command: str, *arguments: str, python: Path | None = None) -> str:
        """What Bazel said."""
        done = self(command, *arguments, python=python)
        assert done.returncode != 0, done.stderr[-4000:]
        return done.stderr + done.stdout

    @property
    def actions(self) -> dict[str, int]:
        """How many actions of each kind the last command ran."""
        text, decoder, at, found = self._log.read_text(), json.JSONDecoder(), 0, Counter[str]()
        while at < len(text):
            spawn, at = decoder.raw_decode(text, at)
            found[spawn["mnemonic"]] += spawn["runner"] != "disk cache hit"
        return dict(+found)

    @property
    def _log(self) -> Path:
        return self.output / "spawns.json"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what this interpreter has, and a package that can be upgraded."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False, symlinks=True)
    (packages,) = root.glob("lib/python3*/site-packages")
    (packages / "here.pth").write_text("\n".join([str(ROOT), *(path for path in sys.path if "site-packages" in path)]))
    install(packages, "1.0")
    return root


def install(packages: Path, version: str) -> None:
    """Something that namedtensor needs, as far as its record tells, before the one that is really there."""
    directory = packages / "click-99.dist-info"
    directory.mkdir(exist_ok=True)
    (directory / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 99\n")
    (directory / "RECORD").write_text(f"click.py,sha256={version},1\nclick-99.dist-info/RECORD,,\n")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, environment: Path) -> Iterator[Bazel]:
    if shutil.which("bazel") is None:
        pytest.skip("bazel is not here; scripts/system-packages installs it on Debian (bazel-bootstrap)")
    if not RUNNER.is_file():
        pytest.skip("scripts/build-runner has not built the runner")
    root = tmp_path_factory.mktemp("bazel")
    # Links become files: Bazel's own links, and changed weights, must not reach the checkout.
    shutil.copytree(ROOT / "bazel_rules", root / "rules", ignore=shutil.ignore_patterns("bazel-*"))
    bazel = Bazel(root / "rules" / "example", environment, root / "output")
    bazel.output.mkdir()
    # Most tests start from here, and the first would seem to take as long as all of them.
    bazel.succeeds("build", "//models/digits:archive")
    yield bazel
    bazel.plain("shutdown")
    # Bazel makes what it built read-only.
    subprocess.run(["chmod", "-R", "u+w", str(bazel.output)], check=False)


@pytest.fixture
def bazel(server: Bazel) -> Iterator[Bazel]:
    """The workspace, whose files are afterwards as they were."""
    before = {path: path.read_bytes() for path in server.digits.iterdir()}
    yield server
    for path in server.digits.iterdir():
        if path not in before:
            path.unlink()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
