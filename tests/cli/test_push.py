"""`namedtensor image push`, from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from namedtensor import zoo
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from namedtensor.export.oci import Layout
from tests.cli.conftest import Cli
from tests.export.oci.registry import layouts
from tests.export.oci.registry.conftest import home
from tests.export.oci.registry.debian import MISSING, REASON, running
from tests.export.oci.registry.layouts import noise
from tests.export.oci.registry.scripted import Registry, error, serving, silent

__all__ = ["home"]

COMMAND = [sys.executable, "-c", "from namedtensor.cli import main; raise SystemExit(main())", "image", "push"]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as found:
        yield found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.simple(tmp_path / "layout", noise(1, 300_000))


def test_a_layout_is_pushed(cli: Cli, registry: Registry, layout: Layout) -> None:
    done = cli("image", "push", layout.path, f"{registry.host}/digits:1")
    assert (done.code, done.err) == (0, "")
    assert registry.image("digits", "1")
    digest = layout.image()["digest"]
    assert done.out.splitlines()[-1] == f"{registry.host}/digits:1@{digest}: 301 kB sent"


def test_json_says_what_became_of_every_blob(
    cli: Cli, registry: Registry, layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = cli("image", "push", layout.path, f"{registry.host}/digits:1", "--json").json
    assert first["reference"] == f"{registry.host}/digits:1"
    assert first["digest"] == layout.image()["digest"]
    assert (first["sent"], first["present"], first["mounted"]) == (2, 0, 0)
    assert first["sent_bytes"] == sum(blob["sent_bytes"] for blob in first["blobs"]) > 300_000
    second = cli("image", "push", layout.path, f"{registry.host}/digits:1", "--json").json
    assert (second["sent_bytes"], second["present"]) == (0, 2)
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path / "another"))
    other = cli("image", "push", layout.path, f"{registry.host}/other:1", "--mount-from", "digits", "--json").json
    assert (other["sent_bytes"], {blob["outcome"] for blob in other["blobs"]}) == (0, {"mounted"})


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["LAYOUT", "HOST/Digits:1"], 2, "did you mean 'digits'"),
        (["LAYOUT", "https://HOST/digits:1"], 2, "has no scheme"),
        (["LAYOUT", "HOST/digits:1", "--mount-from", "A"], 2, "no repository's name"),
        (["LAYOUT", "HOST/digits:1", "--ca-file", "LAYOUT/missing.pem"], 2, "does not exist"),
        (["LAYOUT", "HOST/digits:1", "--ca-file", "LAYOUT/index.json"], 1, "no certificates"),
        (["LAYOUT/missing", "HOST/digits:1"], 2, "does not exist"),
        (["LAYOUT/blobs", "HOST/digits:1"], 3, "not an OCI image layout"),
        (["LAYOUT/index.json", "HOST/digits:1"], 3, "not an OCI image layout"),
        (["LAYOUT", "HOST/digits:1", "--tag", "other"], 3, "0 images tagged 'other'"),
        (["LAYOUT", "127.0.0.1:1/digits:1"], 1, "connection refused"),
        (["LAYOUT", "HOST/denied:1"], 1, "no right to write to denied (DENIED: not yours)"),
    ],
)
def test_errors_are_one_line(
    cli: Cli, registry: Registry, layout: Layout, arguments: list[str], code: int, says: str
) -> None:
    registry.fault("POST", "/denied/", *[error(403, "DENIED", "not yours") for _ in range(9)])
    filled = [one.replace("LAYOUT", str(layout.path)).replace("HOST", registry.host) for one in arguments]
    done = cli("image", "push", *filled)
    assert done.code == code
    assert says in done.err
    assert [line for line in done.err.splitlines() if not line.startswith("  try ")][1:] == []
    assert not registry.manifests


def test_an_interrupted_push_ends_at_once(registry: Registry, layout: Layout) -> None:
    registry.fault("POST", "/uploads/", *[silent(300) for _ in range(9)])
    # Started from a script's background, these tests themselves ignore interruptions, and so would what they start.
    process = subprocess.Popen(
        [*COMMAND, layout.path, f"{registry.host}/digits:1"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not registry.count("POST") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=45)
    assert process.returncode == 130
    assert err == "namedtensor: error: interrupted\n"


def test_a_terminal_shows_how_it_goes_and_a_pipe_does_not(registry: Registry, layout: Layout) -> None:
    ours, theirs = os.openpty()
    try:
        push = [*COMMAND, str(layout.path), f"{registry.host}/digits:1"]
        done = subprocess.run(push, stderr=theirs, stdout=subprocess.PIPE, check=True, timeout=60, env=os.environ)
        os.set_blocking(ours, False)
        assert b"pushing" in os.read(ours, 1 << 16)
        assert b"\x1b" not in done.stdout
    finally:
        os.close(ours)
        os.close(theirs)
    done = subprocess.run(push, capture_output=True, check=True, timeout=60, env=os.environ)
    assert done.stderr == b""


@pytest.mark.skipif(bool(MISSING), reason=REASON)
@pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")
def test_an_archive_is_pushed_killed_and_pushed_again(
    cli: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = tmp_path / "digits.tar.zst"
    archive.build(zoo.find("digits").program(), packed, ["cpu:x86-64-v3"])
    with running(tmp_path_factory.mktemp("registry")) as debian:
        process = subprocess.Popen([*COMMAND, packed, f"{debian.host}/digits:1"], env=os.environ)
        # As soon as it has begun to send.
        while not list(debian.root.rglob("_uploads/*")) and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not debian.has("digits:1") or process.returncode == 0

        done = cli("image", "push", packed, f"{debian.host}/digits:1", "--json").json
        found = debian.inspect("digits:1")
        assert found["Digest"] == done["digest"]
        assert found["Os"] == "linux"
        assert len(done["referrers"]) >= 1
        assert cli("image", "push", packed, f"{debian.host}/digits:1", "--json").json["sent_bytes"] == 0
