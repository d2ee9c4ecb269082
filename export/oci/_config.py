"""What an image says of itself: how it is started, and what it was made of (image-spec 1.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import namedtensor
from namedtensor._errors import InputError
from namedtensor.export.oci import _libraries, _media
from namedtensor.export.oci._base import PLATFORM, Base
from namedtensor.export.oci._layers import Layer
from namedtensor.export.oci._pack import WORKING_DIRECTORY, Packed, plugins

TARGETS = "namedtensor.targets"
MODEL = "namedtensor.model"
ARCHIVE = "namedtensor.archive.digest"
WEIGHTS = "namedtensor.weights.digest"

# Where Kubernetes Engine mounts NVIDIA's driver; NVIDIA's own container runtime uses the system's directory.
_DRIVER = "/usr/local/nvidia/lib64"


@dataclass(frozen=True)
class Choices:
    """What whoever builds an image decides of its configuration."""

    user: str = f"{_libraries.USER}:{_libraries.USER}"
    ports: Sequence[int] = ()
    version: str | None = None


def created() -> str | None:
    """SOURCE_DATE_EPOCH as an image says it, or None: a time of its own would give each build another digest."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise InputError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970") from None


def made_by() -> str:
    """Who makes layers, as their history says it."""
    return f"namedtensor {namedtensor.__version__}"


def described(packed: Packed, base: Base | None, choices: Choices) -> dict[str, str]:
    """What the manifest says, and the configuration's labels."""
    manifest = packed.contents.manifest
    found = {
        _media.TITLE: packed.contents.name,
        _media.VERSION: choices.version,
        _media.CREATED: created(),
        _media.BASE_NAME: base.name or None if base else None,
        _media.BASE_DIGEST: base.digest if base else None,
        MODEL: packed.contents.name,
        TARGETS: ",".join(packed.targets),
        ARCHIVE: f"sha256:{packed.digest}",
        WEIGHTS: f"sha256:{manifest['weights']['sha256']}",
    }
    return {key: value for key, value in found.items() if value is not None}


def config(packed: Packed, layers: Sequence[Layer], base: Base | None, choices: Choices) -> dict[str, Any]:
    """The configuration: starts the runner, as nobody in particular, where files are mounted."""
    name = packed.contents.name
    below = base.config.get("config") if base else None
    inherited: dict[str, Any] = below if isinstance(below, dict) else {}
    environment = dict(one.split("=", 1) for one in inherited.get("Env") or [] if "=" in one)
    environment.update(_environment(packed, environment))
    time = created()
    history = base.config.get("history") if base else None
    if base and not isinstance(history, list):
        history = [{"created_by": base.name or base.digest}] * len(base.layers)
    started: dict[str, Any] = {
        "User": choices.user,
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Entrypoint": [f"/{name}/{name}"],
        "WorkingDir": f"/{WORKING_DIRECTORY}",
        "Labels": {**(inherited.get("Labels") or {}), **described(packed, base, choices)},
        "StopSignal": inherited.get("StopSignal"),
        "Volumes": inherited.get("Volumes"),
    }
    if choices.ports:
        started["ExposedPorts"] = {f"{port}/tcp": {} for port in choices.ports}
    return {
        **({"created": time} if time else {}),
        **PLATFORM,
        "config": {key: value for key, value in started.items() if value},
        "rootfs": {
            "type": "layers",
            "diff_ids": [*(base.diff_ids if base else []), *(layer.diff_id for layer in layers)],
        },
        "history": [
            *(history or []),
            *(
                {**({"created": time} if time else {}), "created_by": made_by(), "comment": layer.title}
                for layer in layers
            ),
        ],
    }


def _environment(packed: Packed, inherited: dict[str, str]) -> dict[str, str]:
    """With CUDA: where the driver's libraries are, and which of them NVIDIA's container runtime is to bring."""
    if "cuda" not in plugins(packed.contents):
        return {}
    paths = dict.fromkeys([*inherited.get("LD_LIBRARY_PATH", "").split(":"), _DRIVER])
    return {
        "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
