"""A step of the wheel's build: packs the native kernels, if they were built, and names the platform they are for."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "namedtensor/_native"


class NativeKernels(BuildHookInterface[BuilderConfig]):
    """Without the kernels the wheel is pure Python and installs anywhere."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not any(Path(self.root, NATIVE).glob("libnt_kernels.*")):
            return
        # They are ignored by git, and what git ignores is not packed unless it is named.
        build_data["artifacts"].append(f"/{NATIVE}/libnt_kernels.*")
        build_data["pure_python"] = False
        # The library is called through a C interface, so it is tied to the platform and to no Python version.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
