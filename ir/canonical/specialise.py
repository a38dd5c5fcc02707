"""Fix the sizes of the graph's inputs, so that every shape behind them is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..errors import UserError


def specialise(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give every graph input a static shape, in place.

    A symbolic size takes its number from ``shapes``, by input name, and means the same number wherever its
    name recurs. A symbolic first size that nobody fixes is the batch, which is 1.

    Raises UserError if ``shapes`` names no input, contradicts the file, or leaves a size open.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    unknown = [name for name in shapes if name not in inputs]
    if unknown:
        raise UserError(f"the model has no input {unknown[0]}; its inputs are {', '.join(map(str, inputs))}.")
    bound: dict[str, int] = {}
    for name, wanted in shapes.items():
        declared = inputs[name].shape
        if declared is None:
            inputs[name].shape = ir.Shape(wanted)
            continue
        fits = len(declared) == len(wanted) and all(size > 0 for size in wanted)
        if not fits or any(
            isinstance(d, int) and d != size for d, size in zip(declared, wanted, strict=False)
        ):
            raise UserError(
                f"input {name} cannot have shape {_show(wanted)}; the model says {_show(declared)}."
            )
        for declared_size, size in zip(declared, wanted, strict=True):
            label = declared_size.value if isinstance(declared_size, ir.SymbolicDim) else None
            if label is not None and bound.setdefault(label, size) != size:
                raise UserError(
                    f"size {label} of input {name} cannot be {size}: it is {bound[label]} elsewhere."
                )
        inputs[name].shape = ir.Shape(wanted)
    for value in model.graph.inputs:
        if value.shape is None:
            raise UserError(f"input {value.name} has no declared shape; give one with shapes={{...}}.")
        sizes = [_resolve(value, axis, size, bound) for axis, size in enumerate(value.shape)]
        value.shape = ir.Shape(sizes)
    for node in model.graph:
        for output in node.outputs:
            output.shape = None


def _resolve(value: ir.Value, axis: int, size: int | ir.SymbolicDim, bound: dict[str, int]) -> int:
    if isinstance(size, int):
        if size < 1:
            raise UserError(f"size {axis} of input {value.name} is {size}; it should be 1 or more.")
        return size
    if size.value in bound:
        return bound[size.value]
    if axis == 0:
        return 1
    raise UserError(f"size {axis} ({size}) of input {value.name} is open; give the shape of {value.name}.")


def _show(shape: Sequence[int] | ir.Shape) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
