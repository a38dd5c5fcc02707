"""Projections of the timestep's embedding, which stand in one product for all resnets (ir/canonical/embedding.py), of
which some are read no more.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from ...ir.making import Maker
from ...ir.shapes import shape_of


def trim(graph: ir.Graph) -> None:
    """Leave the weights out of stacked products whose share of the result nothing reads."""
    for split in [node for node in graph if node.op_type == "Split"]:
        found = _stacked(split)
        if found is not None:
            _trim(split, *found)


def _stacked(split: ir.Node) -> tuple[ir.Node, ir.Node, list[ir.Node]] | None:
    """The Reshape and the Gemm before a Split, and the Concats of its weights and biases; None if it is something
    else.
    """
    reshape = split.inputs[0].producer() if split.inputs[0] is not None else None
    gemm = reshape.inputs[0].producer() if reshape is not None and reshape.inputs[0] is not None else None
    if reshape is None or gemm is None or (reshape.op_type, gemm.op_type) != ("Reshape", "Gemm"):
        return None
    stacks = [value.producer() for value in gemm.inputs[1:] if value is not None]
    if split.attributes.get_int("axis", 0) != 1 or not all(
        len(one.outputs[0].uses()) == 1 for one in (reshape, gemm)
    ):
        return None
    told = [one for one in stacks if one is not None and one.op_type == "Concat"]
    if len(told) != 2 or any(one.attributes.get_int("axis", 0) != 0 for one in told):
        return None
    return reshape, gemm, told


def _trim(split: ir.Node, reshape: ir.Node, gemm: ir.Node, stacks: list[ir.Node]) -> None:
    pieces = [shape_of(value)[0] for value in stacks[0].inputs if value is not None]
    parts = [shape_of(value)[1] for value in split.outputs]
    read = [bool(value.uses()) or value.is_graph_output() for value in split.outputs]
    ends = list(pairwise(accumulate(parts, initial=0)))
    kept = [
        any(used and start < high and low < end for used, (start, end) in zip(read, ends, strict=True))
        for low, high in pairwise(accumulate(pieces, initial=0))
    ]
    if all(kept) or not any(kept):
        return
    spans = [span for span, one in zip(pairwise(accumulate(pieces, initial=0)), kept, strict=True) if one]
    left = [
        value
        for value, (start, end) in zip(split.outputs, ends, strict=True)
        if any(low < end and start < high for low, high in spans)
    ]
    total = sum(high - low for low, high in spans)
    for stack in stacks:
        stack_inputs = [value for value, one in zip(stack.inputs, kept, strict=True) if one]
        for index, value in enumerate(stack_inputs):
            stack.replace_input_with(index, value)
        stack.resize_inputs(len(stack_inputs))
        stack.outputs[0].shape = ir.Shape([total, *shape_of(stack.outputs[0])[1:]])
    for node, sizes in ((gemm, [1, total]), (reshape, [1, total, 1, 1])):
        node.outputs[0].shape = ir.Shape(sizes)
    # Another pass may trim what is left: names are of a size that there is once.
    purpose = f"trimmed.{total}"
    maker = Maker(split, purpose)
    reshape.replace_input_with(1, Maker(reshape, purpose).constant(np.array([1, total, 1, 1])))
    sizes = maker.constant(np.array([shape_of(value)[1] for value in left]))
    new = ir.node(
        "Split", [split.inputs[0], sizes], {"axis": 1}, num_outputs=len(left), name=split.name,
        metadata_props=dict(split.metadata_props),
    )  # fmt: skip
    graph = split.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(split, new)
    for old, value in zip(left, new.outputs, strict=True):
        value.shape, value.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        value.name, old.name = old.name, None
    graph.remove(split, safe=True)
