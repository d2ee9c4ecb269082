"""Pushes of an image with a layer of several chunks, without patience."""

from __future__ import annotations

from typing import Any

from namedtensor.export.oci import Layout
from namedtensor.export.oci.registry import Client, Patience, Pushed, Reference, Timeouts, push
from tests.export.oci.registry.layouts import noise
from tests.export.oci.registry.scripted import Registry

HASTY = Patience(attempts=3, first_s=0.01, longest_s=0.02, asked_s=2.0)
SHORT = Timeouts(connect=2.0, idle=0.5)
CHUNK = 64 << 10
BIG = noise(1, 5 * CHUNK + 1000)


def again(registry: Registry, layout: Layout, reference: Reference, **options: Any) -> Pushed:
    """A push by a new client, as another run of the program would."""
    registry.requests.clear()
    with Client(own=registry.host, patience=HASTY, timeouts=SHORT) as client:
        return push(layout, reference, client, chunk=CHUNK, **options)


def big(layout: Layout) -> dict[str, Any]:
    """The descriptor of the layer of several chunks."""
    found: dict[str, Any] = layout.layers(layout.manifest(layout.image()))[0]
    return found
