"""Registries: images read from them and pushed to them, as OCI distribution-spec 1.1 has it.

Reading, for an image to build on:

    with Client() as client:
        reference = Reference.parse("debian:12-slim")           # docker.io/library/debian:12-slim
        manifest = client.manifest(reference)                   # of linux/amd64 where it is an index
        config = client.blob(reference, manifest.config)        # -> Path, in the cache, verified by size and digest
        layers = [client.blob(reference, layer) for layer in manifest.layers]

Pushing a layout:

    with Client(own=reference.registry) as client:
        pushed = push(Layout(path), reference, client)

`manifest.descriptor` (media_type, digest, size), `.config`, `.layers`, `.manifests`, `.subject` are descriptors,
`.data` the bytes, `.document` what they say.
"""

from namedtensor.export.oci.registry._client import Client
from namedtensor.export.oci.registry._content import Descriptor, Manifest
from namedtensor.export.oci.registry._errors import RegistryError
from namedtensor.export.oci.registry._patience import Patience
from namedtensor.export.oci.registry._push import Pushed, Watcher, push
from namedtensor.export.oci.registry._reference import Reference, checked_repository
from namedtensor.export.oci.registry._session import Timeouts

__all__ = [
    "Client",
    "Descriptor",
    "Manifest",
    "Patience",
    "Pushed",
    "Reference",
    "RegistryError",
    "Timeouts",
    "Watcher",
    "checked_repository",
    "push",
]
