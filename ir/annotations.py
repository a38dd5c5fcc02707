"""What passes say of values beside what the graph computes: metadata that targets and the hardware model read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import onnx_ir as ir

SCORES = "fick.scores"
"""On a value that holds attention scores: "self" or "cross"."""

BITS = "fick.bits"
"""On a quantised value: the bits it really takes, where its type has more."""

STORED_BITS = "fick.stored_bits"
"""On a value that is written compressed: the mean bits of an element, as measured."""

ROW_BITS = "fick.row_bits"
"""On a value whose rows differ in precision while the program runs: the share of them by bits, as measured."""

RESIDUAL = "fick.residual"
"""On an output of a program that rounds: what is left of its error at each timestep."""

EXACT = "fick.exact"
"""On a product (a node) that is to stay in high precision: it carries what others lose."""


def bits(quantised: ir.Value) -> int | None:
    """Bits of an element of a quantised value; None if its type is not known."""
    if BITS in quantised.metadata_props:
        return int(quantised.metadata_props[BITS])
    return None if quantised.dtype is None else quantised.dtype.bitwidth


def stored_bits(value: ir.Value) -> Fraction | None:
    """Mean bits of an element in memory, if it is compressed."""
    text = value.metadata_props.get(STORED_BITS)
    return Fraction(text) if text else None


def row_bits(value: ir.Value) -> dict[int, Fraction]:
    """Share of the rows by their bits, the widest first; empty if all rows are alike."""
    text = value.metadata_props.get(ROW_BITS)
    shares: Mapping[str, str] = json.loads(text) if text else {}
    return {
        int(width): Fraction(share) for width, share in sorted(shares.items(), key=lambda one: -int(one[0]))
    }


def set_row_bits(value: ir.Value, shares: Mapping[int, Fraction]) -> None:
    value.metadata_props[ROW_BITS] = json.dumps({str(width): str(share) for width, share in shares.items()})


def residual(value: ir.Value) -> dict[str, list[Any]]:
    """What ``set_residual`` said of an output; empty if nothing."""
    return json.loads(value.metadata_props.get(RESIDUAL, "{}"))


def set_residual(
    value: ir.Value, timesteps: Sequence[float], covariance: Sequence[Sequence[Sequence[float]]]
) -> None:
    """Mean products of the error that is left, of the two branches of guidance, unconditional first [n, 2, 2], or of
    every row by itself [n, 1, 1], at each of ``timesteps`` [n].
    """
    said = {"timesteps": list(timesteps), "covariance": [list(map(list, one)) for one in covariance]}
    value.metadata_props[RESIDUAL] = json.dumps(said)
