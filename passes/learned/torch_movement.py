"""Operators that put numbers elsewhere, in torch: each result is numbers of the operand, as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from .torch_values import ints, literal, refuse, text


def _concat(node: ir.Node, *values: Tensor) -> Tensor:
    return torch.cat(values, node.attributes.get_int("axis", 0))


def _split(node: ir.Node, value: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    axis, sizes = node.attributes.get_int("axis", 0), literal(node, 1)
    if sizes is None:
        count = node.attributes.get_int("num_outputs", len(node.outputs))
        return torch.split(value, math.ceil(value.shape[axis] / count), axis)
    return torch.split(value, sizes, axis)


def _slice(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    starts, ends, axes, steps = (literal(node, index) for index in range(1, 5))
    assert starts is not None and ends is not None
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = place if axes is None else axes[place]
        taken = range(value.shape[axis])[start : end : 1 if steps is None else steps[place]]
        if taken.step == 1:
            value = value.narrow(axis, taken.start if taken else 0, len(taken))
        else:
            value = value.index_select(axis, torch.tensor(taken, device=value.device))
    return value


def _reshape(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    sizes = literal(node, 1)
    assert sizes is not None
    if not node.attributes.get_int("allowzero", 0):
        sizes = [size or value.shape[axis] for axis, size in enumerate(sizes)]
    return value.reshape(sizes)


def _transpose(node: ir.Node, value: Tensor) -> Tensor:
    return value.permute(ints(node, "perm", reversed(range(value.ndim))))


def _squeeze(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    axes = literal(node, 1)
    return value.squeeze() if axes is None else value.squeeze(axes)


def _unsqueeze(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    axes = literal(node, 1)
    assert axes is not None
    rank = value.ndim + len(axes)
    for axis in sorted(one % rank for one in axes):
        value = value.unsqueeze(axis)
    return value


def _flatten(node: ir.Node, value: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 1)
    return value.reshape(math.prod(value.shape[:axis]), -1)


def _expand(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    sizes = literal(node, 1)
    assert sizes is not None
    return value.expand(np.broadcast_shapes(tuple(value.shape), tuple(sizes)))


def _tile(node: ir.Node, value: Tensor, *_: Tensor) -> Tensor:
    counts = literal(node, 1)
    assert counts is not None
    return value.repeat(counts)


def _gather(node: ir.Node, value: Tensor, places: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0) % value.ndim
    found = value.index_select(axis, places.reshape(-1).to(torch.int64) % value.shape[axis])
    return found.reshape(*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])


def _pad(node: ir.Node, value: Tensor, *_: Tensor | None) -> Tensor:
    if text(node, "mode", "constant") != "constant":
        raise refuse(node, "other than by a constant")
    pads, filling, axes = literal(node, 1), literal(node, 2), literal(node, 3)
    assert pads is not None
    axes = list(range(value.ndim)) if axes is None else [axis % value.ndim for axis in axes]
    sides = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    flat = [side for axis in reversed(range(value.ndim)) for side in sides.get(axis, (0, 0))]
    return functional.pad(value, flat, value=filling[0] if filling else 0)


_COORDINATES: dict[str, Callable[[Any, float], Any]] = {
    "asymmetric": lambda at, factor: at / factor,
    "half_pixel": lambda at, factor: (at + 0.5) / factor - 0.5,
}

_NEAREST: dict[str, Callable[[Any], Any]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
}


def _resize(node: ir.Node, value: Tensor, *_: Tensor | None) -> Tensor:
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    if text(node, "mode", "nearest") != "nearest" or mode not in _COORDINATES or "axes" in node.attributes:
        raise refuse(node, "other than to the nearest of all axes")
    factors, sizes = literal(node, 2), literal(node, 3)
    if not factors:
        assert sizes is not None
        factors = [new / old for new, old in zip(sizes, value.shape, strict=True)]
    nearest = _NEAREST[text(node, "nearest_mode", "round_prefer_floor")]
    for axis, (factor, size) in enumerate(zip(factors, tuple(value.shape), strict=True)):
        at = _COORDINATES[mode](np.arange(math.floor(size * factor)), factor)
        if factor != 1:
            places = nearest(at).clip(0, size - 1).astype(np.int64)
            value = value.index_select(axis, torch.tensor(places, device=value.device))
    return value


MOVEMENT: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "Concat": _concat, "Expand": _expand, "Flatten": _flatten, "Gather": _gather, "Pad": _pad,
    "Reshape": _reshape, "Resize": _resize, "Slice": _slice, "Split": _split, "Squeeze": _squeeze,
    "Tile": _tile, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
