"""Attention by its sizes, and how its operands lie: what planning asks for and every template has to know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HeadShapes:
    """Strides are those of (batch, head, token, channel); ``scale`` is what scores are multiplied with.

    With ``scaled`` queries, keys and values are integers, and the last three operands a number for each, by which they
    are to be multiplied.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int
    scale: float
    q_strides: tuple[int, ...]
    k_strides: tuple[int, ...]
    v_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    scaled: bool = field(default=False, kw_only=True)

    @property
    def described(self) -> str:
        """What is computed, without where it lies."""
        return (
            f"attention, {self.batch * self.heads} of {self.queries} queries and {self.keys} keys, {self.depth} and "
            f"{self.value_depth} wide"
        )
