"""Port a model from another framework: record what every module returns on both sides, find the first that differs."""

from namedtensor.porting._compare import Comparison, Difference, Row, compare
from namedtensor.porting._measure import Measure
from namedtensor.porting._record import Activations, activations
from namedtensor.porting.torch_dump import dump_torch

__all__ = ["Activations", "Comparison", "Difference", "Measure", "Row", "activations", "compare", "dump_torch"]
