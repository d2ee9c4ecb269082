"""OCI images straight from archives, without Docker."""

from namedtensor.export.oci._build import Image, Report, build
from namedtensor.export.oci._config import Choices
from namedtensor.export.oci._kubernetes import Volume, Wanted, manifest, weights_from
from namedtensor.export.oci._layers import COMPRESSIONS
from namedtensor.export.oci._layout import Descriptor, Layout, check_output

__all__ = [
    "COMPRESSIONS",
    "Choices",
    "Descriptor",
    "Image",
    "Layout",
    "Report",
    "Volume",
    "Wanted",
    "build",
    "check_output",
    "manifest",
    "weights_from",
]
