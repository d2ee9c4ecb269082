"""A small Llama that writes like Shakespeare, trained by `train.py`: 0.8 million parameters, made to be tried out."""

from namedtensor.models.llama.model import program

__all__ = ["WEIGHTS", "program"]

WEIGHTS = "checkpoint"
