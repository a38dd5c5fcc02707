"""Corrections of what a program's rounding does to its results, from calls beside the float program."""

from .bias import CorrectBias, CorrectBiasConfig
from .noise import CorrectNoise, CorrectNoiseConfig
from .reuse import CorrectReuse, CorrectReuseConfig

__all__ = [
    "CorrectBias",
    "CorrectBiasConfig",
    "CorrectNoise",
    "CorrectNoiseConfig",
    "CorrectReuse",
    "CorrectReuseConfig",
]
