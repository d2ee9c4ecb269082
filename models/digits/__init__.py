"""Handwritten digits: the smallest example of a model."""
