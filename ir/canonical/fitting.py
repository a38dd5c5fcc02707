"""Operands that fit together beyond what ONNX's own inference looks at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..errors import UserError
from .propagate import dims, where


def require_fitting(model: ir.Model) -> None:
    """Raise UserError for the first node whose operands do not fit. Shapes must be static."""
    for node in model.graph:
        reason = FITS[node.op_type](node) if node.op_type in FITS else None
        if reason is not None:
            raise UserError(f"types or shapes do not fit at {where(node)}: {reason}.")


def _convolution(node: ir.Node) -> str | None:
    """Filters are [C_out, C_in / groups, ...], of a transposed convolution [C_in, C_out / groups, ...]."""
    channels, filters = dims(node.inputs[0])[1], dims(node.inputs[1])
    groups = node.attributes.get_int("group", 1)
    back = node.op_type == "ConvTranspose"
    wanted, results = (filters[0], filters[1] * groups) if back else (filters[1] * groups, filters[0])
    if channels != wanted or results % groups or channels % groups:
        return f"filters {list(filters)} in {groups} groups do not go over {channels} channels"
    return _vector(node, 2, results)


def _group_norm(node: ir.Node) -> str | None:
    channels, groups = dims(node.inputs[0])[1], node.attributes.get_int("num_groups", 1)
    if groups < 1 or channels % groups:
        return f"{channels} channels are not {groups} groups"
    return _vector(node, 1, channels) or _vector(node, 2, channels)


def _vector(node: ir.Node, place: int, size: int) -> str | None:
    given = node.inputs[place] if place < len(node.inputs) else None
    if given is None or dims(given) == (size,):
        return None
    return f"{given.name} has shape {list(dims(given))} and should have [{size}]"


def _layer_norm(node: ir.Node) -> str | None:
    whole = dims(node.inputs[0])
    axis = node.attributes.get_int("axis", -1)
    return _spread(node, 1, whole[axis:]) or _spread(node, 2, whole[axis:])


def _gemm(node: ir.Node) -> str | None:
    return _spread(node, 2, dims(node.outputs[0]))


def _spread(node: ir.Node, place: int, whole: tuple[int, ...]) -> str | None:
    """Whether an operand can be repeated to the size of ``whole``."""
    given = node.inputs[place] if place < len(node.inputs) else None
    try:
        fits = given is None or np.broadcast_shapes(dims(given), whole) == whole
    except ValueError:
        fits = False
    return None if fits or given is None else f"{given.name} has shape {list(dims(given))}, not {list(whole)}"


FITS: dict[str, Callable[[ir.Node], str | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
}
"""By operator, why its operands do not fit, or None."""
