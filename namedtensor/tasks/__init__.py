"""What a program does for its user: plain declarations, and the host's side of running them."""

from namedtensor.tasks._classify import Classification, Classify, ImageLabels, Label
from namedtensor.tasks._embed import Embed, Embeddings, Match
from namedtensor.tasks._image import ImagePreprocess

__all__ = ["Classification", "Classify", "Embed", "Embeddings", "ImageLabels", "ImagePreprocess", "Label", "Match"]
