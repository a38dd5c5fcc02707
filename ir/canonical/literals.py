"""Numbers that the code spells out again wherever it needs them, such as the frequencies of a time embedding."""

from __future__ import annotations

import onnx_ir as ir

from .propagate import LITERAL


def merge_literals(model: ir.Model) -> int:
    """Let equal constants of the code be one value, so that what is computed from them alike is found to be.

    Returns how many went. Weights stay apart: another checkpoint need not have them equal.
    """
    merged = 0
    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        if LITERAL not in value.meta or value.const_value is None or value.is_graph_output():
            continue
        array = value.const_value.numpy()
        kept = first.setdefault((value.dtype, array.shape, array.tobytes()), value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del model.graph.initializers[name]
            merged += 1
    return merged
