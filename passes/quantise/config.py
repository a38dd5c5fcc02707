"""What all passes that quantise products may be told."""

from __future__ import annotations

from pydantic import Field

from .ranges import RangeConfig


class ProductsConfig(RangeConfig):
    clip_weights: bool = Field(
        default=False,
        description="Whether a weight's range ends where its error is least, not at its largest.",
    )
    least_depth: int = Field(
        default=64,
        ge=1,
        description="Sums of fewer products stay as they are, such as the first layer's [products].",
    )
