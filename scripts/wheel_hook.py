"""A step of the wheel's build: packs native code, where it was built, and names the platform that it is for."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "namedtensor/_native"
# The static ones, and the one that loads plugins.
RUNNERS = ("runner", "runner-lean", "runner-glibc")


class NativeCode(BuildHookInterface[BuilderConfig]):
    """The kernels and the runners. Without them the wheel is pure Python and installs anywhere."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        native = Path(self.root, NATIVE)
        built = [*native.glob("libnt_kernels.*"), *(native / name for name in RUNNERS if (native / name).is_file())]
        if version == "editable" or not built:
            return
        # They are ignored by git, and what git ignores is not packed unless it is named.
        build_data["artifacts"] += [f"/{NATIVE}/{path.name}" for path in built]
        build_data["pure_python"] = False
        # The library is called through a C interface, so both are tied to the platform and to no Python version.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
