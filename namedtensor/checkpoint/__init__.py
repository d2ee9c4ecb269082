"""Checkpoints: opened from their headers, declared by axis names, loaded in the background."""

from namedtensor.checkpoint._checkpoint import Checkpoint
from namedtensor.checkpoint._entry import TensorInfo, Weight
from namedtensor.checkpoint._load import Loading, load

__all__ = ["Checkpoint", "Loading", "TensorInfo", "Weight", "load"]
