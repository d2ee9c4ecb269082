"""OCI images straight from archives, without Docker."""

from namedtensor.export.oci._build import Image, Report, build
from namedtensor.export.oci._config import Choices
from namedtensor.export.oci._layers import COMPRESSIONS
from namedtensor.export.oci._layout import Descriptor, Layout, check_output

__all__ = ["COMPRESSIONS", "Choices", "Descriptor", "Image", "Layout", "Report", "build", "check_output"]
