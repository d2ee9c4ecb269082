"""What a program does for its user: plain declarations, and the host's side of running them."""

from namedtensor.tasks._call import Call, Outputs
from namedtensor.tasks._classify import Classification, Classify, ImageLabels, Label
from namedtensor.tasks._embed import Embed, Embeddings, Match
from namedtensor.tasks._generate import Generate, Generation, Stream
from namedtensor.tasks._image import ImagePreprocess
from namedtensor.tasks._sampling import Sampling
from namedtensor.tasks._template import ChatTemplate

__all__ = [
    "Call",
    "ChatTemplate",
    "Classification",
    "Classify",
    "Embed",
    "Embeddings",
    "Generate",
    "Generation",
    "ImageLabels",
    "ImagePreprocess",
    "Label",
    "Match",
    "Outputs",
    "Sampling",
    "Stream",
]
