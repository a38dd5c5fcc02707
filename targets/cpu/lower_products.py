"""Convolutions and matrix products -> ``Contraction`` calls."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ..fused import Fused, fuse, result_view
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..profile import Profile
from ..views import View, merge_axes
from ..winograd import TAPS
from .elementwise import Pad
from .factors import Factors, per_column, take
from .lower_sums import Sums, plan
from .lower_winograd import lower_winograd, ways


def lower_conv(lowering: Lowering, group: Group, profile: Profile) -> None:
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
    x, shape = lowering.view(data), shape_of(node.outputs[0])
    spatial = range(2, 2 + rank)
    out_rows = (0, *spatial)
    affine = factors.affine(lowering, shape, 1)
    if (bias := node.inputs[2] if len(node.inputs) > 2 else None) is not None:
        affine.append(("Add", per_column(lowering, bias, shape, 1)))
    fused = fuse(lowering, group, node, affine)
    kept = lowering.constants[str(weight.name)]
    exact = kept.dtype == "float32" and kept.codes is None  # transformed filters round worse
    small = tuple(kernel) == (TAPS, TAPS) and fused.parts == 1 and exact
    outputs = None
    if small and set(strides) == set(dilations) == {1}:
        problem = f"conv {list(shape)} of {x.shape[1]} channels"
        outputs = lowering.chooser(str(node.name))(problem, ways(profile, shape, x.shape[1]))
    if outputs is not None:
        before = (pads[0], pads[1])
        lower_winograd(
            lowering, fused, node, profile, outputs=outputs, shape=shape, x=x, before=before, weight=weight
        )
        return
    if any(pads):
        x = padded(lowering, x, pads[:rank], pads[rank:], profile, str(node.name))
    contract(
        lowering,
        fused,
        node,
        profile,
        shape=shape,
        rows=out_rows,
        column=1,
        a=x,
        a_rows=(x.strides[0], *(strides[i] * x.strides[2 + i] for i in range(rank))),
        reduce=(*kernel, x.shape[1]),
        a_reduce=(*(dilations[i] * x.strides[2 + i] for i in range(rank)), x.strides[1]),
        factors=factors,
        order=(0, *spatial, 1),
    )


def lower_matmul(lowering: Lowering, group: Group, profile: Profile) -> None:
    node = group.anchor
    factors = take(node, 1)
    left, right = factors.left, factors.right
    if right.name not in lowering.constants or len(shape_of(right)) != 2:
        raise UserError(
            f"operator MatMul of two computed matrices outside attention is not supported, at {describe(node)}"
        )
    a = lowering.view(left)
    shape = shape_of(node.outputs[0])
    axes = range(len(shape))
    contract(
        lowering,
        fuse(lowering, group, node, factors.affine(lowering, shape, len(shape) - 1)),
        node,
        profile,
        shape=shape,
        rows=tuple(axes[:-1]),
        column=axes[-1],
        a=a,
        a_rows=a.strides[:-1],
        reduce=(a.shape[-1],),
        a_reduce=(a.strides[-1],),
        factors=factors,
        order=(1, 0),
    )


def lower_gemm(lowering: Lowering, group: Group, profile: Profile) -> None:
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
    contract(
        lowering,
        fuse(lowering, group, node, affine),
        node,
        profile,
        shape=shape,
        rows=(0,),
        column=1,
        a=a,
        a_rows=a.strides[:1],
        reduce=(a.shape[1],),
        a_reduce=a.strides[1:],
        factors=factors,
        order=(0, 1) if transposed else (1, 0),
    )


def contract(
    lowering: Lowering,
    fused: Fused,
    node: ir.Node,
    profile: Profile,
    *,
    shape: Sequence[int],
    rows: Sequence[int],
    column: int,
    a: View,
    a_rows: Sequence[int],
    reduce: Sequence[int],
    a_reduce: Sequence[int],
    factors: Factors,
    order: Sequence[int],
) -> None:
    """Add the call for out = epilogue(A x right factors) and say where the group's result lies.

    ``shape`` is the anchor's output shape, of which ``rows`` and ``column`` name the axes; ``order`` brings the
    axes of the right factors to [column, *reduce].
    """
    columns = shape[column] // fused.parts
    out_shape = list(shape)
    out_shape[column] = columns
    out = lowering.fresh(out_shape, (*rows, column), lowering.dtype(fused.result))
    extents, strides = merge_axes(
        [shape[axis] for axis in rows],
        [
            a_rows,
            [out.strides[axis] for axis in rows],
            *([view.strides[axis] for axis in rows] for view in fused.loads),
        ],
    )
    sums = Sums(
        rows=extents,
        a_rows=strides[0],
        reduce=tuple(reduce),
        a_reduce=tuple(a_reduce),
        columns=columns,
        parts=fused.parts,
        out_strides=(*strides[1], out.strides[column]),
    )
    loads = [(*rest, view.strides[column]) for rest, view in zip(strides[2:], fused.loads, strict=True)]
    weight = str(factors.right.name)
    kept = lowering.constants[weight]
    blocks = factors.blocks
    formats = (*lowering.dtypes([a]), kept.codes or kept.dtype)
    way = plan(
        sums, tuple(order), formats, profile, group=0 if blocks is None else blocks.size,
        choose=lowering.chooser(str(node.name)),
    )  # fmt: skip
    inner = [lowering.fresh((count,), dtype=dtype) for dtype, count in way.scratch]
    if blocks is not None and way.scales is not None:
        if blocks.scales.name not in lowering.constants:
            raise UserError(f"scales of blocks that are computed are not supported, at {describe(node)}")
        inner.append(lowering.weight(str(blocks.scales.name), way.scales_shape, way.scales))
    operands = [a, lowering.weight(weight, way.packed_shape, way.packing), out, *inner, *fused.loads]
    kernel = way.kernel(lowering.dtypes(operands), fused.bound(3 + len(inner), loads))
    lowering.call(kernel, operands, str(node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def padded(
    lowering: Lowering,
    x: View,
    before: Sequence[int],
    after: Sequence[int],
    profile: Profile,
    name: str,
) -> View:
    """(N, C, spatial...) with a frame of zeros, channels innermost: as it was computed, or a copy."""
    spatial = list(x.shape[2:])
    whole, frame = lowering.framed.get(x, (x, None))
    if frame == (tuple(before), tuple(after)):
        return whole
    framed = [size + a + b for size, a, b in zip(spatial, before, after, strict=True)]
    order = (0, *range(2, len(x.shape)), 1)
    out = lowering.fresh((x.shape[0], x.shape[1], *framed), order, *lowering.dtypes([x]))
    single = len(spatial) == 1  # a signal is an image of one row
    kernel = Pad(
        dtypes=lowering.dtypes([out, x]),
        planes=x.shape[0],
        height=1 if single else framed[0],
        width=framed[-1],
        channels=x.shape[1],
        image=(1 if single else spatial[0], spatial[-1]),
        before=(0 if single else before[0], before[-1]),
        in_strides=(x.strides[0], 0 if single else x.strides[2], x.strides[-1], x.strides[1]),
        lanes=profile.vector_lanes,
    )
    lowering.call(kernel, [out, x], name)
    return out
