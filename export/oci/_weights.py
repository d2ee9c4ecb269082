"""An image of weights alone, for Kubernetes to mount: archives that have theirs outside share it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from namedtensor.checkpoint import Checkpoint
from namedtensor.export.oci import _config, _media
from namedtensor.export.oci._base import PLATFORM
from namedtensor.export.oci._layers import Layer, layer
from namedtensor.export.oci._layout import Descriptor, Writer, encode

# Whatever the file is called here: who mounts the image need not know.
NAME = "model.safetensors"
_BLOCK = 1 << 20


def is_weights(path: Path) -> bool:
    """Whether a path names weights, by its ending."""
    return path.name.endswith(".safetensors")


def weights(path: Path, layout: Writer, compression: str, version: str | None) -> tuple[Descriptor, Layer, int]:
    """Write an image that holds a file of weights and nothing else.

    Returns: the image, its layer, and the bytes of its configuration. Raises `CheckpointError` where it is damaged.
    """
    Checkpoint.open(str(path))
    with (
        open(path, "rb") as file,
        layer(layout, "weights", compression, expected=(size := os.fstat(file.fileno()).st_size), dense=True) as made,
    ):
        made.file(NAME, size, iter(lambda: file.read(_BLOCK), b""))
    assert made.layer is not None
    time = _config.created()
    about = {_media.TITLE: path.name, _media.VERSION: version, _media.CREATED: time}
    annotations = {key: value for key, value in about.items() if value is not None}
    dated = {"created": time} if time else {}
    document: dict[str, Any] = {
        **dated,
        **PLATFORM,
        "config": {"Labels": annotations},
        "rootfs": {"type": "layers", "diff_ids": [made.layer.diff_id]},
        "history": [{**dated, "created_by": _config.made_by(), "comment": made.layer.title}],
    }
    config = layout.add(encode(document), _media.CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _media.MANIFEST,
        "config": config,
        "layers": [made.layer.descriptor],
        "annotations": annotations,
    }
    return layout.add(encode(manifest), _media.MANIFEST), made.layer, config["size"]
