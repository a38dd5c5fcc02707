"""The formats that a product may have, by the names that recipes give them."""

from __future__ import annotations

from typing import Literal

from ..quantise.choices import Choice, format_bits

FormatName = Literal["float32", "w8", "w4", "w2", "f8", "f4", "w8a8", "w4a8", "w2a8"]

FORMATS: dict[FormatName, Choice] = {
    "float32": Choice("float32", "float32"),
    "w8": Choice("int8", "float32"),
    "w4": Choice("int4", "float32"),
    "w2": Choice("int2", "float32"),
    "f8": Choice("fp8", "float32"),
    "f4": Choice("fp4", "float32"),
    "w8a8": Choice("int8", "int8"),
    "w4a8": Choice("int4", "int8"),
    "w2a8": Choice("int2", "int8"),
}


def bits(name: FormatName) -> tuple[int, int]:
    """Of weights, then of activations."""
    choice = FORMATS[name]
    return format_bits(choice.weights), format_bits(choice.activations)
