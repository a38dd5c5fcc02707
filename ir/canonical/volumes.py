"""Convolutions over more than two axes, such as those of videos, said by convolutions over fewer."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from .propagate import dims
from .writing import operand, span, table, written_out


def _is_deep(node: ir.Node) -> bool:
    explicit = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return len(dims(operand(node, 1))) > 4 and explicit


def _shallower(op: Any, node: ir.Node) -> Any:
    """The same over one axis less, or over two where the window is one element in all axes but the first."""
    kernel = dims(operand(node, 1))[2:]
    rank = len(kernel)
    steps = list(node.attributes.get_ints("strides", [1] * rank))
    dilations = list(node.attributes.get_ints("dilations", [1] * rank))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    if math.prod(kernel[1:]) == math.prod(steps[1:]) == 1 and not any(pads[1:rank] + pads[rank + 1 :]):
        return _along_the_first(op, node, steps[0], dilations[0], (pads[0], pads[rank]))
    return _by_frames(op, node, steps, dilations, pads)


def _along_the_first(op: Any, node: ir.Node, step: int, dilation: int, pads: tuple[int, int]) -> Any:
    """A convolution over (frames, all else as one axis)."""
    x, weight, *bias = node.inputs
    batch, channels, frames, *_ = dims(x)
    filters, inputs, taps, *_ = dims(weight)
    made = op.Conv(
        op.Reshape(x, table(op, [batch, channels, frames, -1])),
        op.Reshape(weight, table(op, [filters, inputs, taps, 1])),
        *bias,
        group=node.attributes.get_int("group", 1),
        strides=[step, 1],
        dilations=[dilation, 1],
        pads=[pads[0], 0, pads[1], 0],
    )
    return op.Reshape(made, table(op, dims(node.outputs[0])))


def _by_frames(op: Any, node: ir.Node, steps: list[int], dilations: list[int], pads: list[int]) -> Any:
    """Every frame of the result is an image of its own, and the frames that a window meets are channels of it."""
    x, weight, *bias = node.inputs
    batch, channels, _, *image = dims(x)
    filters, inputs, taps, *kernel = dims(weight)
    rank, groups = 1 + len(kernel), node.attributes.get_int("group", 1)
    _, _, results, *made_image = dims(node.outputs[0])
    axes = list(range(rank + 2))
    frames_first = [0, 2, 1, *axes[3:]]
    framed: Any = x
    if pads[0] or pads[rank]:
        around = [0] * 2 * len(axes)
        around[2], around[len(axes) + 2] = pads[0], pads[rank]
        framed = op.Pad(x, table(op, around))
    turned = op.Transpose(framed, perm=frames_first)
    met: list[Any] = []
    for tap in range(taps):
        start = tap * dilations[0]
        chosen = span(op, turned, 1, start, start + (results - 1) * steps[0] + 1, steps[0])
        met.append(op.Reshape(chosen, table(op, [batch * results, groups, channels // groups, *image])))
    stacked = op.Reshape(op.Concat(*met, axis=2), table(op, [batch * results, taps * channels, *image]))
    flat = op.Reshape(op.Transpose(weight, perm=frames_first), table(op, [filters, taps * inputs, *kernel]))
    made = op.Conv(
        stacked,
        flat,
        *bias,
        group=groups,
        strides=steps[1:],
        dilations=dilations[1:],
        pads=[*pads[1:rank], *pads[rank + 1 :]],
    )
    apart = op.Reshape(made, table(op, [batch, results, filters, *made_image]))
    return op.Transpose(apart, perm=frames_first)


VOLUMES = [written_out("Conv", _shallower, _is_deep)]
