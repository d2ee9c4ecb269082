"""OCI images straight from archives, without Docker."""

from namedtensor.export.oci._layout import Descriptor, Layout

__all__ = ["Descriptor", "Layout"]
