"""The model zoo: one directory per architecture, each readable from top to bottom."""
