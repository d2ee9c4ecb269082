"""Sentence embeddings with all-MiniLM-L6-v2: a BERT of six layers (MiniLM, arXiv 2002.10957)."""

from namedtensor.models.bert.model import program

__all__ = ["WEIGHTS", "program"]

WEIGHTS = "hf://sentence-transformers/all-MiniLM-L6-v2"
