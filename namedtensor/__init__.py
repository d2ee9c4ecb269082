"""Models with named axes: written once, checked before they run, lowered to StableHLO."""

__version__ = "0.1.0"
