"""Which ways of resizing repeat every element, so that a target has nothing to compute."""

from __future__ import annotations

import onnx_ir as ir

REPEATING = frozenset(
    {("asymmetric", "floor")}
    | {
        (corners, rounding)
        for corners in ("half_pixel", "pytorch_half_pixel")
        for rounding in ("round_prefer_floor", "round_prefer_ceil")
    }
)
"""Ways of choosing the nearest element that repeat each one, for every whole factor."""


def factors(node: ir.Node) -> list[float]:
    """By how much a Resize of static shapes enlarges every axis, as its coordinates are reckoned."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None and x.shape is not None and y.shape is not None
    sizes = [after / before for before, after in zip(x.shape.numpy(), y.shape.numpy(), strict=True)]
    given = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] else None
    if given is None or not given.size:
        return sizes
    axes = node.attributes.get_ints("axes", list(range(len(sizes))))
    found = [1.0] * len(sizes)
    for axis, scale in zip(axes, given.numpy(), strict=True):
        found[axis] = float(scale)
    return found


def repeats(node: ir.Node) -> bool:
    """Whether the result of a Resize of static shapes is each element so many times."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None and x.shape is not None and y.shape is not None
    corners = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    whole = all(
        scale.is_integer() and before * scale == after
        for scale, before, after in zip(factors(node), x.shape.numpy(), y.shape.numpy(), strict=True)
    )
    return (
        whole
        and node.attributes.get_string("mode", "nearest") == "nearest"
        and ((corners, rounding) in REPEATING)
    )
