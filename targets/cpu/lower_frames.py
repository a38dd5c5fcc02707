"""Images that are computed into a frame of zeros, where the convolutions that read them want one: nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ...ir.formats import opens
from ..graph_facts import shape_of
from ..lowering import Frame, Lowering
from ..profile import Profile
from ..views import View
from . import elementwise


def wanted_frames(graph: ir.Graph) -> dict[str, Frame]:
    """By the name of the value: what all of its readers agree on.

    Only convolutions of weights in few bits are sure to sum directly; minimal filtering sees to its edges itself.
    """
    found: dict[str, Frame] = {}
    for node in graph:
        for value in node.outputs:
            wanted = {_frame(reader, index) for reader, index in _readers(value)}
            if len(wanted) == 1 and (frame := wanted.pop()) is not None and not value.is_graph_output():
                found[str(value.name)] = frame
    return found


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Of the value, or of its numbers in another format."""
    for node, index in value.uses():
        if (
            node.op_type == "Cast" and value.dtype in (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
        ) or node.op_type == "DequantizeLinear":
            yield from _readers(node.outputs[0])
        else:
            yield node, index


def _frame(reader: ir.Node, index: int) -> Frame | None:
    if reader.op_type != "Conv" or index != 0:
        return None
    weight = reader.inputs[1]
    assert weight is not None
    pads = reader.attributes.get_ints("pads", [])
    made = weight.producer()
    narrow = made is not None and (made.op_type == "Cast" or opens(made))
    if not narrow or len(pads) != 4 or not any(pads):
        return None
    return tuple(pads[:2]), tuple(pads[2:])


def image(lowering: Lowering, value: ir.Value, shape: tuple[int, ...], profile: Profile, name: str) -> View:
    """Room for a value computed as (N, C, spatial...), channels innermost, in the frame that its readers want."""
    dtype = lowering.dtype(value)
    frame = lowering.frames.get(str(value.name))
    if frame is None or len(shape) != 4 or shape != shape_of(value):
        return lowering.fresh(shape, (0, *range(2, len(shape)), 1), dtype)
    before, after = frame
    height, width = (size + a + b for size, a, b in zip(shape[2:], before, after, strict=True))
    whole = lowering.fresh((*shape[:2], height, width), (0, 2, 3, 1), dtype)
    kernel = elementwise.Frame(
        dtypes=(dtype,), planes=shape[0], height=height, width=width, channels=shape[1],
        before=(before[0], before[1]), after=(after[0], after[1]), lanes=profile.vector_lanes,
    )  # fmt: skip
    lowering.call(kernel, [whole], name)
    inside = whole.slice(2, before[0], shape[2]).slice(3, before[1], shape[3])
    lowering.framed[inside] = whole, frame
    return inside
