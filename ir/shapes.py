"""Sizes of values, and which of their axes are channels."""

from __future__ import annotations

import onnx_ir as ir

from .errors import UserError


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """The static shape of a value that is there. Raises UserError where it is not known."""
    assert value is not None
    if value.shape is None or not value.shape.is_static():
        raise UserError(
            f"value {value.name} has no static shape; give the sizes of the model's inputs, as --shape "
            "NAME=1,4,64,64."
        )
    return tuple(int(size) for size in value.shape.numpy())


def channel_axis(rank: int) -> int:
    """Of pictures [batch, channels, height, width], else of tokens [..., channels]."""
    return 1 if rank == 4 else rank - 1
