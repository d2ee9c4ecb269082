"""Targets: what a program is compiled for, as `platform:chip`, such as `cuda:h100`, `rocm:mi300x` or `tpu:v5e-4`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from namedtensor import targets
from namedtensor._errors import InputError, closest
from namedtensor.targets import Chip

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Target:
    """What executables are made for: one chip, several of one kind, or an instruction level of CPUs.

    - `name`: as a person writes it.
    - `platform`: `cpu`, `cuda`, `rocm` or `tpu`.
    - `chip`: None for CPUs, where many processors have an instruction level in common.
    - `chips`: how many; a program runs on the first of them.
    """

    name: str
    platform: str
    chip: Chip | None
    chips: int = 1

    @property
    def architecture(self) -> str | None:
        """What executables depend on: a compute capability (9.0a), AMD's name (gfx942:...), a generation (v5e).

        None for CPUs.
        """
        if self.chip is None:
            return None
        return str(self.chip.compiler["generation" if self.platform == "tpu" else "architecture"])

    @property
    def level(self) -> str:
        """The instruction level of a CPU, `x86-64-v3` or `native`."""
        return self.name.partition(":")[2]

    def topology(self) -> tuple[str, dict[str, Any]]:
        """The topology's name and options, as the plugin's compile-only client wants them."""
        assert self.chip is not None
        if self.platform == "tpu":
            shape = self.chip.compiler["topologies"][str(self.chips)]
            bounds = [int(side) for side in shape.split("x")]
            options = {"chips_per_host_bounds": [*bounds, 1, 1][:3]} if self.chips < 4 else {}
            return f"{self.chip.compiler['generation']}:{shape}", options
        return self.chip.key, {"target_config": target_config(self.chip), "topology": "1x1x1"}


def target_config(chip: Chip) -> str:
    """XLA's GpuTargetConfigProto of a chip, as text."""
    settings = chip.compiler
    lines = [f"  {name}: {value}" for name, value in settings["limits"].items()]
    architecture = settings["architecture"]
    if chip.platform == "cuda":
        found = re.fullmatch(r"(\d+)\.(\d+)(a?)", architecture)
        if found is None:
            raise InputError(f"{chip.key}: architecture {architecture!r} is not a compute capability such as 9.0a")
        # Instructions of one architecture only (wgmma, tcgen05) go by the letter a.
        feature = "ACCELERATED_FEATURES" if found[3] else "NONE"
        lines.append(
            f"  cuda_compute_capability {{ major: {found[1]} minor: {found[2]} feature_extension: {feature} }}"
        )
        # Versions of the libraries that the pinned plugin was built for.
        lines += [
            f'  {name}: "13.0.0"' for name in ("driver_version", "runtime_version", "compile_time_toolkit_version")
        ]
        lines.append('  dnn_version: "9.12.0"')
        versions = "dnn_version_info { major: 9 minor: 12 }"
    else:
        if not re.fullmatch(r"gfx[0-9a-f]+(:[a-z]+[+-])*", architecture):
            raise InputError(f"{chip.key}: architecture {architecture!r} is not a name such as gfx942:sramecc+:xnack-")
        lines.append(f'  rocm_compute_capability {{ gcn_arch_name: "{architecture}" }}')
        versions = "dnn_version_info { }"
    device = settings["device"].replace("\\", "").replace('"', "")
    body = "\n".join(lines)
    return (
        f'gpu_device_info {{\n{body}\n}}\nplatform_name: "{chip.platform.upper()}"\n{versions}\n'
        f'device_description_str: "{device}"\n'
    )


def known() -> list[Target]:
    """Every target that comes with the package: CPUs by instruction level, TPUs with each number of chips."""
    from namedtensor.export.cpu import LEVELS

    cpus = [Target(f"cpu:{level}", "cpu", None) for level in (*LEVELS, "native")]
    found = []
    for name in targets.names():
        if name == targets.NATIVE:
            continue
        chip = targets.chip(name)
        if chip.platform == "tpu":
            short = name.removeprefix("tpu-")
            for count in chip.compiler["topologies"]:
                found.append(Target(f"tpu:{short}-{count}", "tpu", chip, int(count)))
        else:
            found.append(Target(f"{chip.platform}:{name}", chip.platform, chip))
    return cpus + sorted(found, key=_order)


def _order(target: Target) -> tuple[int, str, int]:
    return PLATFORMS.index(target.platform), target.chip.key if target.chip is not None else "", target.chips


def target(name: str) -> Target:
    """The target of a name, or of a file that describes a chip as `namedtensor/targets/*.toml` do.

    Raises `InputError` for an unknown name, with the nearest one, and for a file that lacks something.
    """
    if name.endswith(".toml"):
        return _from_file(Path(name))
    every = {one.name: one for one in known()}
    # One chip is what a TPU's name means without a number.
    found = every.get(name) or every.get(f"{name}-1")
    if found is None:
        guess = closest(name, every)
        hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(every)}"
        raise InputError(f"there is no target {name!r}: {hint}")
    return found


def _from_file(path: Path) -> Target:
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a target that can be read ({error})") from error
    names = {one.name for one in fields(Chip)} - {"key"}
    lacking, unknown = sorted(names - content.keys()), sorted(content.keys() - names)
    if lacking or unknown:
        problem = f"lacks {', '.join(lacking)}" if lacking else f"has unknown {', '.join(unknown)}"
        raise InputError(f"{path}: {problem}; copy a file from namedtensor/targets and change it")
    chip = Chip(path.stem, **content)
    if chip.platform not in PLATFORMS[1:]:
        raise InputError(f"{path}: platform {chip.platform!r} is not one of {', '.join(PLATFORMS[1:])}")
    wanted = {"generation", "topologies"} if chip.platform == "tpu" else {"device", "architecture", "limits"}
    if wanted - chip.compiler.keys():
        raise InputError(f"{path}: [compiler] lacks {', '.join(sorted(wanted - chip.compiler.keys()))}")
    return Target(f"{chip.platform}:{path.stem}", chip.platform, chip)
