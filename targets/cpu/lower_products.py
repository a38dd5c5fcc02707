"""Convolutions and matrix products -> ``Contraction`` calls, or minimal filtering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...ir.errors import UserError
from ..framing import framing
from ..fused import result_view
from ..graph_facts import describe
from ..lowering import Lowering
from ..planning.device import Product
from ..planning.filtering import filterable, ways
from ..profile import Profile
from ..views import View, merge_axes
from .elementwise import Pad
from .lower_sums import Sums, plan
from .lower_winograd import filtered_formats, lower_winograd


def lower_product(lowering: Lowering, product: Product, profile: Profile) -> None:
    """A convolution is a product of matrices whose left one is read with the window's strides."""
    window, x = product.window, product.left
    if window is None:
        contract(lowering, product, profile, x, x.strides[:-1], x.shape[-1:], x.strides[-1:])
        return
    if profile.enlarge_weights and filterable(lowering, product, filtered_formats(profile)):
        format = lowering.constants[str(product.factors.right.name)].dtype
        problem = f"conv {list(product.shape)} of {x.shape[1]} channels in {format}"
        choices = ways(profile.macs_per_byte, product.shape, x.shape[1], format)
        outputs = lowering.chooser(str(product.node.name))(problem, choices)
        if outputs is not None:
            lower_winograd(lowering, product, window, profile, outputs)
            return
    if any((*window.before, *window.after)):
        x = padded(lowering, x, window.before, window.after, profile, str(product.node.name))
    steps = x.strides[2:]
    contract(
        lowering,
        product,
        profile,
        x,
        (x.strides[0], *_products(window.strides, steps)),
        (*window.taps, x.shape[1]),
        (*_products(window.dilations, steps), x.strides[1]),
    )


def _products(counts: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
    return tuple(count * step for count, step in zip(counts, steps, strict=True))


def contract(
    lowering: Lowering,
    product: Product,
    profile: Profile,
    a: View,
    a_rows: Sequence[int],
    reduce: Sequence[int],
    a_reduce: Sequence[int],
) -> None:
    """Add the call for out = epilogue(A x right factors) and say where the group's result lies."""
    node, fused, factors = product.node, product.fused, product.factors
    shape, rows, column, order = product.shape, product.rows, product.column, product.order
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
        sums, order, formats, profile, group=0 if blocks is None else blocks.size,
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
    whole, frame = lowering.framed.get(x, (x, None))
    if frame == (tuple(before), tuple(after)):
        return whole
    out, frame = framing(lowering, x, before, after)
    kernel = Pad(lowering.dtypes([out, x]), **asdict(frame), lanes=profile.vector_lanes)
    lowering.call(kernel, [out, x], name)
    return out
