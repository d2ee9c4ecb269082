"""Where an image comes from: an in-toto statement with SLSA's provenance (https://slsa.dev/spec/v1.0/provenance).

It is not signed. Whoever signs images signs this by its digest, as any other artifact of the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import namedtensor
from namedtensor.export.oci._base import Base
from namedtensor.export.oci._config import Choices, created
from namedtensor.export.oci._layout import Descriptor
from namedtensor.export.oci._libraries import Library
from namedtensor.export.oci._pack import Packed

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:namedtensor:image-build:v1"
# Whoever ran the command: a build service that vouches for more makes a statement of its own.
BUILDER = "urn:namedtensor:command-line"


def statement(
    packed: Packed,
    image: Descriptor,
    base: Base | None,
    libraries: Sequence[Library],
    choices: Choices,
    compression: str,
) -> dict[str, Any]:
    """What an image was made of and how; the same build gives the same statement."""
    time = created()
    weights = packed.contents.manifest["weights"]
    dependencies: list[dict[str, Any]] = [
        {"name": "archive", "digest": {"sha256": packed.digest}},
        {"name": "weights", "digest": {"sha256": weights["sha256"]}},
    ]
    if base is not None:
        name = {"uri": f"oci://{base.name}"} if base.name else {"name": "base"}
        dependencies.append({**name, "digest": {"sha256": base.digest.removeprefix("sha256:")}})
    urls = sorted({library.package.url for library in libraries if library.package is not None})
    dependencies += [{"uri": url} for url in urls]
    return {
        "_type": STATEMENT,
        "subject": [{"name": packed.contents.name, "digest": {"sha256": image["digest"].removeprefix("sha256:")}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "model": packed.contents.name,
                    "targets": packed.targets,
                    "compression": compression,
                    "user": choices.user,
                    "ports": list(choices.ports),
                },
                "internalParameters": {"compiler": packed.contents.manifest.get("compiler", {})},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"namedtensor": namedtensor.__version__}},
                "metadata": {"finishedOn": time} if time else {},
            },
        },
    }
