"""Sizes of values, and which of their axes are channels."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...ir.errors import UserError


def shape(value: ir.Value) -> tuple[int, ...]:
    """Raises UserError unless it is known."""
    if value.shape is None or not value.shape.is_static():
        raise UserError(f"value {value.name} has no static shape; give the sizes of the model's inputs.")
    return tuple(value.shape.numpy())


def channel_axis(sizes: Sequence[int]) -> int:
    """Pictures have channels before pixels, tokens behind."""
    return 1 if len(sizes) == 4 else len(sizes) - 1


def fits(source: ir.Value, end: ir.Value) -> bool:
    """Whether values differ in their channels at most."""
    ours, theirs = (list(shape(one)) for one in (source, end))
    if len(ours) != len(theirs):
        return False
    del ours[channel_axis(ours)], theirs[channel_axis(theirs)]
    return ours == theirs
