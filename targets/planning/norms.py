"""Normalisations and softmax, and what they read and write."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ..fused import Fused, fuse, result_view
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..views import View, merged
from .device import Images, Rows


def lower_group_norm(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    data, scale, bias = node.inputs[0], node.inputs[1], node.inputs[2]
    assert data is not None and scale is not None and bias is not None
    shape = shape_of(data)
    spatial = tuple(range(2, len(shape)))
    x = lowering.view(data)
    if x.strides[1] != 1:
        x = lowering.materialised(x, (0, *spatial, 1))
    fused = fuse(lowering, group, node)
    out = lowering.device.image(lowering, fused.result, shape, str(node.name))
    views = [x, out, *fused.loads]
    pixels, strides = merged(views, spatial)
    images = Images(
        node=node,
        fused=fused,
        x=x,
        scale=lowering.materialised(lowering.view(scale)),
        bias=lowering.materialised(lowering.view(bias)),
        out=out,
        pixels=pixels,
        strides=tuple(
            (view.strides[0], *along, view.strides[1]) for view, along in zip(views, strides, strict=True)
        ),
        groups=node.attributes["num_groups"].as_int(),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
    )
    lowering.device.group_norm(lowering, images)
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def lower_layer_norm(lowering: Lowering, group: Group) -> None:
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
    _lower_rows(lowering, node, fused, len(shape) - 1, epsilon)


def lower_softmax(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    axis = node.attributes.get_int("axis", -1) % len(shape_of(node.outputs[0]))
    _lower_rows(lowering, node, fuse(lowering, group, node), axis, None)


def _lower_rows(lowering: Lowering, node: ir.Node, fused: Fused, axis: int, epsilon: float | None) -> None:
    data = node.inputs[0]
    assert data is not None
    x = lowering.view(data)
    rows = [other for other in x.order() if other != axis]
    out = lowering.fresh(x.shape, (*rows, axis), lowering.dtype(fused.result))
    views: list[View] = [x, out, *fused.loads]
    extents, strides = merged(views, rows)
    ends = [view.strides[axis] for view in views]
    full = [(*along, end) for along, end in zip(strides, ends, strict=True)]
    lowering.device.row_norm(
        lowering, Rows(node, fused, x, out, extents, x.shape[axis], tuple(full), epsilon)
    )
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)
