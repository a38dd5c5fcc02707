"""What may be said of the pass assign."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..budget import Budget
from ..quantise.config import ProductsConfig
from .formats import FormatName

Errors = Literal["gradients", "measured"]


class AssignConfig(ProductsConfig):
    budget: Budget = Field(
        default="latency=0.5x",
        description="Most that the program may cost: latency=0.5x, bytes=250MB, energy=0.5x, several with commas.",
    )
    formats: tuple[FormatName, ...] = Field(
        default=("float32", "w8a8"),
        min_length=1,
        description="What a product may be in: float32, w8a8, w4a8, w2a8, or weights alone as w8, w4, w2, f8, f4.",
    )
    pictures: bool = Field(
        default=False,
        description="Whether cross-attention and feed-forward layers are scored by pictures drawn with each: hours.",
    )
    errors: Errors = Field(
        default="gradients",
        description="What each product loses: by gradients in torch, which is fast, or measured one by one, which "
        "is done too where torch is missing or lacks an operator.",
    )
    calls: int = Field(
        default=8, ge=1, description="Of the calibration's, by which errors are measured [calls]."
    )
