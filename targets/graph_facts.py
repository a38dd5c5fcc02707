"""Small readings of the graph that lowering needs everywhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..ir import shapes
from ..ir.errors import UserError
from ..ir.modules import module_path


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value. Raises UserError where it is not known, or holds nothing."""
    shape = shapes.shape_of(value)
    if 0 in shape:
        raise UserError(
            f"value {value.name} has shape {list(shape)}, which holds nothing; export the model anew"
        )
    return shape


def describe(node: ir.Node) -> str:
    """The node, and the module it came from where the exporter says so."""
    path = module_path(node)
    return f"node {node.name!r}" + (f" of module {path}" if path else "")


def permutation(node: ir.Node) -> list[int]:
    value = node.inputs[0]
    assert value is not None
    rank = len(shape_of(value))
    given = node.attributes.get_ints("perm", None)
    return list(given) if given is not None else list(range(rank))[::-1]


def numbers(node: ir.Node, index: int) -> list[int] | None:
    """An input that must be known when compiling, as integers; None if it is absent."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return None
    value = node.inputs[index]
    assert value is not None
    if value.const_value is None:
        raise UserError(
            f"operator {node.op_type} needs input {index} ({value.name}) known when compiling, "
            f"at {describe(node)}"
        )
    return [int(one) for one in np.asarray(value.const_value.numpy()).reshape(-1)]
