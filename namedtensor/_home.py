"""Where this package keeps what can be made or fetched again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path | None:
    """`$NAMEDTENSOR_CACHE`, or `namedtensor` in `$XDG_CACHE_HOME` or `~/.cache`; None where the first one is `off`."""
    chosen = os.environ.get("NAMEDTENSOR_CACHE")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "namedtensor"
