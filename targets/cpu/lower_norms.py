"""Normalisations and softmax -> ``GroupNorm``, ``LayerNorm`` and ``Softmax`` calls."""

from __future__ import annotations

import math

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ..fused import Fused, fuse, result_view
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..profile import Profile
from ..views import View, merge_axes
from .group_norm import GroupNorm
from .lower_frames import image
from .row_norm import LayerNorm, RowNorm, Softmax


def lower_group_norm(lowering: Lowering, group: Group, profile: Profile) -> None:
    node = group.anchor
    data, scale, bias = node.inputs[0], node.inputs[1], node.inputs[2]
    assert data is not None and scale is not None and bias is not None
    shape = shape_of(data)
    spatial = tuple(range(2, len(shape)))
    x = lowering.view(data)
    if x.strides[1] != 1:
        x = lowering.materialised(x, (0, *spatial, 1))
    fused = fuse(lowering, group, node)
    out = image(lowering, fused.result, shape, profile, str(node.name))
    views = [x, out, *fused.loads]
    pixels, strides = merge_axes(
        [shape[axis] for axis in spatial], [[view.strides[axis] for axis in spatial] for view in views]
    )
    total = math.prod(pixels)
    learned = [lowering.materialised(lowering.view(one)) for one in (scale, bias)]
    kernel = GroupNorm(
        dtypes=(*lowering.dtypes([x, *learned]), "float32", *lowering.dtypes([out, *fused.loads])),
        images=shape[0],
        pixels=pixels,
        channels=shape[1],
        groups=node.attributes["num_groups"].as_int(),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
        runs=_runs(total, profile),
        x_strides=(x.strides[0], *strides[0]),
        out_strides=(out.strides[0], *strides[1], out.strides[1]),
        epilogue=fused.bound(
            5,
            [
                (view.strides[0], *along, view.strides[1])
                for view, along in zip(fused.loads, strides[2:], strict=True)
            ],
        ),
        lanes=profile.vector_lanes,
    )
    scratch = lowering.fresh((kernel.scratch_floats,))
    operands = [x, *learned, scratch, out, *fused.loads]
    lowering.call(kernel, operands, str(node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def _runs(pixels: int, profile: Profile) -> int:
    """Into how many equal runs the pixels are cut: enough for every core, small enough for its cache."""
    runs = 1
    while (
        pixels % (runs * 2) == 0
        and pixels // (runs * 2) >= 16
        and (runs < 2 * profile.cores or pixels // runs * 512 > profile.l2_bytes // 2)
    ):
        runs *= 2
    return runs


def lower_layer_norm(lowering: Lowering, group: Group, profile: Profile) -> None:
    node = group.anchor
    shape = shape_of(node.outputs[0])
    if node.attributes.get_int("axis", -1) not in (-1, len(shape) - 1):
        raise UserError(
            f"operator LayerNormalization over more than the last axis is not supported, at {describe(node)}"
        )
    parameters = zip(("Mul", "Add"), node.inputs[1:], strict=False)
    affine = [(op, lowering.view(value).expand(shape)) for op, value in parameters if value is not None]
    fused = fuse(lowering, group, node, affine)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    _lower_rows(lowering, node, fused, len(shape) - 1, profile, LayerNorm, {"epsilon": epsilon})


def lower_softmax(lowering: Lowering, group: Group, profile: Profile) -> None:
    node = group.anchor
    axis = node.attributes.get_int("axis", -1) % len(shape_of(node.outputs[0]))
    _lower_rows(lowering, node, fuse(lowering, group, node), axis, profile, Softmax, {})


def _lower_rows(
    lowering: Lowering,
    node: ir.Node,
    fused: Fused,
    axis: int,
    profile: Profile,
    template: type[RowNorm],
    own: dict[str, float],
) -> None:
    data = node.inputs[0]
    assert data is not None
    x = lowering.view(data)
    rows = [other for other in x.order() if other != axis]
    out = lowering.fresh(x.shape, (*rows, axis), lowering.dtype(fused.result))
    views: list[View] = [x, out, *fused.loads]
    extents, strides = merge_axes(
        [x.shape[other] for other in rows], [[view.strides[other] for other in rows] for view in views]
    )
    ends = [view.strides[axis] for view in views]
    full = [(*along, end) for along, end in zip(strides, ends, strict=True)]
    kernel = template(
        dtypes=lowering.dtypes(views),
        rows=extents,
        columns=x.shape[axis],
        x_strides=full[0],
        out_strides=full[1],
        epilogue=fused.bound(2, full[2:]),
        lanes=profile.vector_lanes,
        **own,  # type: ignore[arg-type]
    )
    lowering.call(kernel, [x, out, *fused.loads], str(node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)
