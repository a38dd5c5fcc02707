"""Corrections of what a program's rounding does to its results, from calls beside the float program."""

from .bias import CorrectBias
from .noise import CorrectNoise, CorrectNoiseConfig
from .reuse import CorrectReuse, CorrectReuseConfig

__all__ = [
    "CorrectBias",
    "CorrectNoise",
    "CorrectNoiseConfig",
    "CorrectReuse",
    "CorrectReuseConfig",
]
