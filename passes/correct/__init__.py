"""Corrections of what a program's rounding does to its results, from calls beside the float program."""

from .bias import CorrectBias, CorrectBiasConfig
from .noise import CorrectNoise, CorrectNoiseConfig

__all__ = ["CorrectBias", "CorrectBiasConfig", "CorrectNoise", "CorrectNoiseConfig"]
