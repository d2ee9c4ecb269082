"""Makes `.venv` from `requirements.lock` and installs the checkout into it, editable.

Run by `scripts/setup` with the interpreter that the environment shall have; needs the standard library only.
A stamp, written last, records what the environment was made from. Without it, or when it tells of another
interpreter or another place, the environment is made anew, so an interrupted set-up is never taken for a
complete one. `--check` exits with 0 if the stamp is current, 1 if not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "namedtensor-setup.json"
PYTHON = ENVIRONMENT / "bin" / "python"


def wanted() -> dict[str, str]:
    """What the environment depends on: where it is, the interpreter, and the files that say what goes in."""
    sources = (LOCK, ROOT / "pyproject.toml", Path(__file__))
    return {
        "place": str(ENVIRONMENT),
        "python": sys.version,
        "base": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sources},
    }


def stamped() -> dict[str, str]:
    """What the stamp records, empty if there is none that can be read."""
    try:
        record = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> bool:
    """Runs a command with its output on this terminal. Returns: whether it succeeded."""
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0


def entry(name: str) -> str:
    """The lock file's lines about one package: its version and hashes."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next(i for i in range(start, len(lines)) if not lines[i].endswith("\\"))
    return "\n".join(lines[start : end + 1]) + "\n"


def uv_environment() -> dict[str, str]:
    """The process environment with pip's configuration in uv's terms, so that both use the same registry."""
    listing = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    # In pip's order of precedence, so that a later line overrules an earlier one.
    for section in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section):
                settings[key.removeprefix(section)] = value.strip("'\"")

    def words(key: str) -> list[str]:
        return settings.get(key, "").replace("\\n", " ").split()

    environment = dict(os.environ)
    # Certificates that were added to the system, or named to pip, count for uv too.
    environment.setdefault("UV_SYSTEM_CERTS", "1")
    translated = {
        "SSL_CERT_FILE": settings.get("cert", ""),
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(words("extra-index-url")),
        "UV_INSECURE_HOST": " ".join(words("trusted-host")),
        # pip passes over a directory that is not there; uv stops.
        "UV_FIND_LINKS": ",".join(link for link in words("find-links") if "://" in link or Path(link).is_dir()),
    }
    for key, value in translated.items():
        if value:
            environment.setdefault(key, value)
    return environment


def install_with_uv() -> bool:
    """Installs what the lock names with uv, itself installed from its entry there. Returns: whether that worked."""
    requirements = ENVIRONMENT / "uv-requirements.txt"
    requirements.write_text(entry("uv"), encoding="utf-8")
    if not run([PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", requirements]):
        return False
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return run(
        [
            ENVIRONMENT / "bin" / "uv",
            "pip",
            "sync",
            *quiet,
            "--compile-bytecode",
            "--python",
            PYTHON,
            "--require-hashes",
            LOCK,
        ],
        uv_environment(),
    )


def install_with_pip() -> bool:
    """Installs what the lock names with pip: slower, but it understands every configuration a machine can have."""
    return run([PYTHON, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", LOCK])


def install_checkout() -> bool:
    """Installs the checkout itself, editable, with the build back end that is in the environment already."""
    what = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    return run([ENVIRONMENT / "bin" / "uv", "pip", "install", "--quiet", "--python", PYTHON, *what], uv_environment())


def set_up() -> int:
    """Makes or renews the environment. Returns: the exit status."""
    want, have = wanted(), stamped()
    if want == have:
        return 0
    began = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Setting up .venv with Python {version} ...", file=sys.stderr, flush=True)
    keep = all(have.get(key) == want[key] for key in ("place", "python", "base"))
    STAMP.unlink(missing_ok=True)
    if not keep:
        venv.create(ENVIRONMENT, clear=True, with_pip=True, prompt="namedtensor")
    if not install_with_uv():
        print("uv could not install the environment; trying pip.", file=sys.stderr, flush=True)
        if not install_with_pip():
            print(
                f"The packages that {LOCK.name} names could not be installed: see pip's message above. "
                "Is the package registry within reach?",
                file=sys.stderr,
            )
            return 1
    if not install_checkout():
        print("The checkout could not be installed into .venv: see the message above.", file=sys.stderr)
        return 1
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps(want, indent=2) + "\n", encoding="utf-8")
    partial.replace(STAMP)
    print(f"Set up in {time.monotonic() - began:.0f} s.", file=sys.stderr, flush=True)
    return 0


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--check"]:
        return 0 if wanted() == stamped() else 1
    # Two makes at once must not both write into one environment.
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return set_up()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
