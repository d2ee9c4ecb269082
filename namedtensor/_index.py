"""Slices, gather and scatter by name."""

from namedtensor._base import Base


class Indexing(Base):
    __slots__ = ()
