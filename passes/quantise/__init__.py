"""Products in few bits: which, with what ranges, and how it is written in the graph."""

from .by_step import QuantiseByStep, QuantiseByStepConfig
from .quantise import Quantise, QuantiseConfig

__all__ = ["Quantise", "QuantiseByStep", "QuantiseByStepConfig", "QuantiseConfig"]
