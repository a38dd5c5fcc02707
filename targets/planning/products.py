"""Convolutions and matrix products -> products with packed weights, or sums over what is computed or in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ..fused import Fused, fuse, result_view
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..packing import Panels
from ..views import View
from .device import Product, Window
from .factors import Factors, per_column, take
from .reductions import sum_of_products


def lower_conv(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    attributes = node.attributes
    factors = take(node, 0)
    data, weight = factors.left, factors.right
    if len(shape_of(weight)) > 4:
        raise UserError(
            f"operator Conv over more than two axes is not supported (over one or two is), at {describe(node)}"
        )
    kernel = shape_of(weight)[2:]
    rank = len(kernel)
    strides = attributes.get_ints("strides", [1] * rank)
    dilations = attributes.get_ints("dilations", [1] * rank)
    pads = attributes.get_ints("pads", [0] * 2 * rank)
    if attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UserError(f"operator Conv with auto_pad is not supported, at {describe(node)}")
    shape = shape_of(node.outputs[0])
    window = Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(pads[rank:]))
    affine = factors.affine(lowering, shape, 1)
    if (bias := node.inputs[2] if len(node.inputs) > 2 else None) is not None:
        affine.append(("Add", per_column(lowering, bias, shape, 1)))
    spatial = tuple(range(2, 2 + rank))
    fused = fuse(lowering, group, node, affine)
    if attributes.get_int("group", 1) != 1 or weight.name not in lowering.constants:
        _grouped(lowering, node, fused, factors, window)
        return
    product = Product(
        node=node,
        fused=fused,
        shape=shape,
        rows=(0, *spatial),
        column=1,
        left=lowering.view(data),
        factors=factors,
        order=(0, *spatial, 1),
        window=window,
    )
    lowering.device.product(lowering, product)


def _grouped(lowering: Lowering, node: ir.Node, fused: Fused, factors: Factors, window: Window) -> None:
    """A convolution in groups, or with computed filters: a sum for each of its results."""
    _require_numbers(node, factors)
    shape, filters = shape_of(node.outputs[0]), shape_of(factors.right)
    groups = node.attributes.get_int("group", 1)
    x = lowering.view(factors.left)
    if any((*window.before, *window.after)):
        x = lowering.device.padded(lowering, x, window.before, window.after, str(node.name))
    inputs, each = filters[1], filters[0] // groups
    along = x.strides[2:]
    moved = [step * stride for step, stride in zip(window.strides, along, strict=True)]
    apart = [dilation * stride for dilation, stride in zip(window.dilations, along, strict=True)]
    # (image, spatial..., group, filter) by (taps..., channel of the group): neighbouring filters lie side by side.
    split = (shape[0], *shape[2:], groups, each)
    left = replace(
        x,
        shape=(*split, *window.taps, inputs),
        strides=(x.strides[0], *moved, inputs * x.strides[1], 0, *apart, x.strides[1]),
    )
    right = _filters(lowering, factors.right, window.taps)
    steps = right.strides
    right = replace(
        right, shape=left.shape, strides=(0,) * (len(split) - 2) + (each * steps[-1], steps[-1], *steps[:-1])
    )
    inside = replace(fused, loads=[_channels_split(view, groups, each) for view in fused.loads])
    out = sum_of_products(lowering, node, inside, left, right, split)
    joined = lowering.reshaped(out, (shape[0], *shape[2:], shape[1]))
    places = (0, len(shape) - 1, *range(1, len(shape) - 1))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, joined.transpose(places))


def _filters(lowering: Lowering, value: ir.Value, taps: Sequence[int]) -> View:
    """(taps..., channel, filter), of constants in the order in which they are walked."""
    count, inputs = shape_of(value)[:2]
    places = (*range(2, 2 + len(taps)), 1, 0)
    if value.name not in lowering.constants:
        return lowering.view(value).transpose(places)
    packing = Panels(order=(0, *places[:-1]), width=count, starts=(0,))
    packed = lowering.weight(str(value.name), (1, math.prod(taps) * inputs, count), packing)
    return View.dense(packed.buffer, (*taps, inputs, count))


def _channels_split(view: View, groups: int, each: int) -> View:
    """(N, spatial..., group, filter) of (N, C, spatial...)."""
    step = view.strides[1]
    return replace(
        view,
        shape=(view.shape[0], *view.shape[2:], groups, each),
        strides=(view.strides[0], *view.strides[2:], each * step, step),
    )


def _require_numbers(node: ir.Node, factors: Factors) -> None:
    """Raise UserError for codes: only packed matrices of weights are opened."""
    if factors.blocks is not None or factors.power != 1.0:
        raise UserError(
            f"operator {node.op_type} in groups or of computed matrices is supported for numbers and integers with "
            f"one scale or one a column, and not for blocks or small floats, at {describe(node)}"
        )


def lower_matmul(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    factors = take(node, 1)
    left, right = factors.left, factors.right
    shape = shape_of(node.outputs[0])
    last = len(shape) - 1
    fused = fuse(lowering, group, node, factors.affine(lowering, shape, last))
    if right.name not in lowering.constants or len(shape_of(right)) != 2:
        _multiply(lowering, node, fused, factors, lowering.view(left), lowering.view(right))
        return
    product = Product(
        node=node,
        fused=fused,
        shape=shape,
        rows=tuple(range(last)),
        column=last,
        left=lowering.view(left),
        factors=factors,
        order=(1, 0),
    )
    lowering.device.product(lowering, product)


def _multiply(lowering: Lowering, node: ir.Node, fused: Fused, factors: Factors, a: View, b: View) -> None:
    """(..., rows, reduction) times (..., reduction, columns), both computed, or either of many matrices."""
    _require_numbers(node, factors)
    shape, depth = shape_of(node.outputs[0]), a.shape[-1]
    a = a.expand((*shape[:-1], depth))
    left = replace(a, shape=(*shape, depth), strides=(*a.strides[:-1], 0, a.strides[-1]))
    b = b.expand((*shape[:-2], depth, shape[-1]))
    right = replace(b, shape=(*shape, depth), strides=(*b.strides[:-2], 0, b.strides[-1], b.strides[-2]))
    out = sum_of_products(lowering, node, fused, left, right, shape)
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def lower_gemm(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    attributes = node.attributes
    transposed = attributes.get_int("transB", 0)
    factors = take(node, 0 if transposed else 1)
    left, right = factors.left, factors.right
    scales = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    if scales != (1.0, 1.0):
        raise UserError(f"operator Gemm with alpha or beta is not supported, at {describe(node)}")
    a = lowering.view(left)
    if attributes.get_int("transA", 0):
        a = a.transpose((1, 0))
    shape = shape_of(node.outputs[0])
    affine = factors.affine(lowering, shape, 1)
    if (bias := node.inputs[2] if len(node.inputs) > 2 else None) is not None:
        affine.append(("Add", lowering.view(bias).expand(shape)))
    fused = fuse(lowering, group, node, affine)
    if right.name not in lowering.constants:
        b = lowering.view(right)
        _multiply(lowering, node, fused, factors, a, b.transpose((1, 0)) if transposed else b)
        return
    product = Product(
        node=node,
        fused=fused,
        shape=shape,
        rows=(0,),
        column=1,
        left=a,
        factors=factors,
        order=(0, 1) if transposed else (1, 0),
    )
    lowering.device.product(lowering, product)
