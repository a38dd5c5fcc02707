"""Convolutions and matrix products -> products."""

from __future__ import annotations

from ...ir.errors import UserError
from ...ir.groups import Group
from ..fused import fuse
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from .device import Product, Window
from .factors import per_column, take


def lower_conv(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    attributes = node.attributes
    factors = take(node, 0)
    data, weight = factors.left, factors.right
    if attributes.get_int("group", 1) != 1:
        raise UserError(
            f"operator Conv with group={attributes.get_int('group')} is not supported, at {describe(node)}"
        )
    if len(shape_of(weight)) > 4:
        raise UserError(f"operator Conv over more than two axes is not supported, at {describe(node)}")
    if weight.name not in lowering.constants:
        raise UserError(f"operator Conv with computed weights is not supported, at {describe(node)}")
    kernel = shape_of(weight)[2:]
    rank = len(kernel)
    strides = attributes.get_ints("strides", [1] * rank)
    dilations = attributes.get_ints("dilations", [1] * rank)
    pads = attributes.get_ints("pads", [0] * 2 * rank)
    if attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UserError(f"operator Conv with auto_pad is not supported, at {describe(node)}")
    shape = shape_of(node.outputs[0])
    affine = factors.affine(lowering, shape, 1)
    if (bias := node.inputs[2] if len(node.inputs) > 2 else None) is not None:
        affine.append(("Add", per_column(lowering, bias, shape, 1)))
    spatial = tuple(range(2, 2 + rank))
    product = Product(
        node=node,
        fused=fuse(lowering, group, node, affine),
        shape=shape,
        rows=(0, *spatial),
        column=1,
        left=lowering.view(data),
        factors=factors,
        order=(0, *spatial, 1),
        window=Window(
            tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(pads[rank:])
        ),
    )
    lowering.device.product(lowering, product)


def lower_matmul(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    factors = take(node, 1)
    left, right = factors.left, factors.right
    if right.name not in lowering.constants or len(shape_of(right)) != 2:
        raise UserError(
            f"operator MatMul of two computed matrices outside attention is not supported, at {describe(node)}"
        )
    shape = shape_of(node.outputs[0])
    last = len(shape) - 1
    product = Product(
        node=node,
        fused=fuse(lowering, group, node, factors.affine(lowering, shape, last)),
        shape=shape,
        rows=tuple(range(last)),
        column=last,
        left=lowering.view(left),
        factors=factors,
        order=(1, 0),
    )
    lowering.device.product(lowering, product)


def lower_gemm(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    attributes = node.attributes
    transposed = attributes.get_int("transB", 0)
    factors = take(node, 0 if transposed else 1)
    left, right = factors.left, factors.right
    scales = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    if right.name not in lowering.constants or scales != (1.0, 1.0):
        raise UserError(
            f"operator Gemm with computed weights, alpha or beta is not supported, at {describe(node)}"
        )
    a = lowering.view(left)
    if attributes.get_int("transA", 0):
        a = a.transpose((1, 0))
    shape = shape_of(node.outputs[0])
    affine = factors.affine(lowering, shape, 1)
    if (bias := node.inputs[2] if len(node.inputs) > 2 else None) is not None:
        affine.append(("Add", lowering.view(bias).expand(shape)))
    product = Product(
        node=node,
        fused=fuse(lowering, group, node, affine),
        shape=shape,
        rows=(0,),
        column=1,
        left=a,
        factors=factors,
        order=(0, 1) if transposed else (1, 0),
    )
    lowering.device.product(lowering, product)
