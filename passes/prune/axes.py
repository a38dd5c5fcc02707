"""Which axes of values are channels."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...ir.shapes import shape_of


def channel_axis(sizes: Sequence[int]) -> int:
    """Pictures have channels before pixels, tokens behind."""
    return 1 if len(sizes) == 4 else len(sizes) - 1


def fits(source: ir.Value, end: ir.Value) -> bool:
    """Whether values differ in their channels at most."""
    ours, theirs = (list(shape_of(one)) for one in (source, end))
    if len(ours) != len(theirs):
        return False
    del ours[channel_axis(ours)], theirs[channel_axis(theirs)]
    return ours == theirs
