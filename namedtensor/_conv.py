"""Convolution and pooling over named windows."""

from namedtensor._base import Base


class Windows(Base):
    __slots__ = ()
