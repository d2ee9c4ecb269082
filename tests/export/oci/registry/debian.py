"""Debian's docker-registry on loopback, and skopeo, which knows nothing of us."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = [name for name in ("docker-registry", "skopeo") if shutil.which(name) is None]
REASON = f"not here: {', '.join(MISSING)}; scripts/system-packages installs them on Debian"
USER, PASSWORD = "ann", "correct horse"
_HTPASSWD = f"{USER}:$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e\n"


@dataclass(frozen=True)
class Debian:
    """A running docker-registry: where it listens, where it keeps things, and its log."""

    host: str
    root: Path
    log: Path

    def requests(self) -> list[str]:
        """Method and path of every request, from its access log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.split('"')[1].partition("?")[0] for line in lines if '] "' in line]

    def skopeo(self, *arguments: str) -> str:
        done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inspect(self, image: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.skopeo("inspect", "--tls-verify=false", f"docker://{self.host}/{image}")
        )
        return found

    def has(self, image: str) -> bool:
        """Whether the tag is there, as skopeo sees it."""
        done = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{self.host}/{image}"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0


@contextlib.contextmanager
def running(root: Path, *, htpasswd: bool = False, tls: tuple[Path, Path] | None = None) -> Iterator[Debian]:
    """A registry with nothing in it, for as long as the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    if htpasswd:
        (root / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    if tls is not None:
        config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    # YAML is a superset of JSON.
    (root / "config.yml").write_text(json.dumps(config))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", root / "config.yml"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _wait(process, host)
            yield Debian(host, root / "data", root / "log")
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], host: str) -> None:
    until = time.monotonic() + 15
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("docker-registry does not start")
