"""The elementwise part of a fusion group, as an expression over the coordinates of its anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.groups import Group
from ..ir.operators import CONVERSIONS, ELEMENTWISE, REARRANGING
from .expressions import Apply, Expression, Literal, Load, Value, bound
from .graph_facts import describe, permutation, shape_of
from .lowering import Lowering
from .views import View

Operator = tuple[str, View | float]
"""An operator that an anchor leaves to the expression, with its other argument."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


@dataclass
class Fused:
    """What a group does to each element its anchor computes.

    ``loads[i]`` is the view, in the anchor's logical axes, that ``Load(i, ())`` of ``expression`` reads.
    ``rearrangements`` lead from the anchor's shape to the shape of ``result``.
    """

    expression: Expression
    result: ir.Value
    loads: list[View] = field(default_factory=list)
    rearrangements: list[ir.Node] = field(default_factory=list)
    parts: int = 1

    def bound(self, first_operand: int, strides: Sequence[Sequence[int]]) -> Expression:
        """The expression with load i reading kernel operand ``first_operand + i`` at ``strides[i]``."""
        return bound(self.expression, first_operand, strides)


def fuse(
    lowering: Lowering,
    group: Group,
    anchor: ir.Node | None,
    affine: Sequence[Operator] = (),
) -> Fused:
    """Build the expression of ``group``. Without an anchor, every value read from outside is a load.

    ``affine`` are operators of the anchor itself that its kernel leaves to the expression: ("Add", bias), say,
    with the view broadcast to the anchor's shape.
    """
    return _Builder(lowering, group, anchor, affine).build()


class _Builder:
    def __init__(
        self, lowering: Lowering, group: Group, anchor: ir.Node | None, affine: Sequence[Operator]
    ) -> None:
        self.affine = affine
        self.lowering = lowering
        self.nodes = [node for node in group.nodes if node is not anchor]
        self.inside = {id(output): node for node in self.nodes for output in node.outputs}
        self.anchor_value = anchor.outputs[0] if anchor else None
        self.result = self.nodes[-1].outputs[0] if self.nodes else group.nodes[-1].outputs[0]
        self.loads: list[View] = []
        self.parts = 2 if any(node.op_type == "Split" for node in self.nodes) else 1

    def build(self) -> Fused:
        expression = self._value(self.result, None)
        rearrangements = [node for node in self.nodes if node.op_type in REARRANGING]
        return Fused(expression, self.result, self.loads, rearrangements, self.parts)

    def _value(self, value: ir.Value, part: int | None) -> Expression:
        if value is self.anchor_value:
            return self._anchor(part)
        node = self.inside[id(value)]
        if node.op_type == "Split":
            return self._value(_input(node, 0), list(node.outputs).index(value))
        if node.op_type in REARRANGING:
            return self._value(_input(node, 0), part)
        return elementwise(node, [self._operand(node, one, part) for one in node.inputs if one is not None])

    def _anchor(self, part: int | None) -> Expression:
        result: Expression = Value(part or 0)
        for op, other in self.affine:
            argument = self._load(other, part) if isinstance(other, View) else Literal(other)
            result = Apply(op, (result, argument))
        return result

    def _load(self, view: View, part: int | None) -> Load:
        """A view in the anchor's axes; of a gated layer, the half that belongs to ``part``."""
        if part is not None:
            half = view.shape[-1] // 2
            view = view.slice(len(view.shape) - 1, part * half, half)
        if view not in self.loads:
            self.loads.append(view)
        return Load(self.loads.index(view), ())

    def _operand(self, node: ir.Node, value: ir.Value, part: int | None) -> Expression:
        if value is self.anchor_value or id(value) in self.inside:
            return self._value(value, part)
        literal = self.lowering.literal(value)
        # A scale is read from memory, so that layers which differ in nothing else share a kernel.
        if literal is not None and not (node.op_type in CONVERSIONS and value is node.inputs[1]):
            return Literal(literal)
        view = self.lowering.view(value).expand(shape_of(node.outputs[0]))
        return self._load(self._in_anchor_axes(view, node), part if self._before_split(node) else None)

    def _before_split(self, node: ir.Node) -> bool:
        position = self.nodes.index(node)
        return any(later.op_type == "Split" for later in self.nodes[position:])

    def _in_anchor_axes(self, view: View, reader: ir.Node) -> View:
        """Undo, last first, the rearrangements between the anchor and the node that reads the view."""
        before = [node for node in self.nodes[: self.nodes.index(reader)] if node.op_type in REARRANGING]
        for node in reversed(before):
            if node.op_type == "Transpose":
                forward = permutation(node)
                view = view.transpose([forward.index(axis) for axis in range(len(forward))])
            else:
                view = self.lowering.reshaped(view, shape_of(_input(node, 0)))
        return view


def elementwise(node: ir.Node, args: list[Expression]) -> Expression:
    """One elementwise ONNX node over already built arguments."""
    op = node.op_type
    if op == "Cast":
        return args[0]  # kernels compute in float32: they widen what they load and round what they store
    if op in CONVERSIONS:
        return _converted(node, args)
    if op not in ELEMENTWISE:
        raise UserError(f"operator {op} cannot run inside a fused kernel, at {describe(node)}")
    if op == "Clip":
        result, bounds = args[0], iter(args[1:])
        present = [one is not None for one in node.inputs[1:]]
        if present[:1] == [True]:
            result = Apply("Max", (result, next(bounds)))
        if present[1:] == [True]:
            result = Apply("Min", (result, next(bounds)))
        return result
    if op == "Gelu" and node.attributes.get_string("approximate", "none") == "tanh":
        op = "GeluTanh"
    if op == "Swish" and (alpha := node.attributes.get_float("alpha", 1.0)) != 1.0:
        gate = Apply("Sigmoid", (Apply("Mul", (args[0], Literal(alpha))),))
        return Apply("Mul", (args[0], gate))
    if op == "ThresholdedRelu":
        return Apply(op, (args[0], Literal(node.attributes.get_float("alpha", 1.0))))
    if op == "Div" and (kind := node.outputs[0].dtype) is not None and kind.is_integer():
        return Apply("Trunc", (Apply(op, tuple(args)),))
    if op in ("Max", "Min") and len(args) != 2:
        result = args[0]
        for arg in args[1:]:
            result = Apply(op, (result, arg))
        return result
    return Apply(op, tuple(args))


def _converted(node: ir.Node, args: list[Expression]) -> Expression:
    """QuantizeLinear (to the nearest integer, of two the even one, and within the type's ends) or its inverse."""
    given, scale, *zero_point = args
    scales, result = node.inputs[1], node.outputs[0]
    if scales is None or scales.shape is None or scales.shape.numpy() != () or result.dtype is None:
        raise UserError(
            f"operator {node.op_type} with more than one scale is not supported, at {describe(node)}"
        )
    shift = zero_point[0] if zero_point else Literal(0.0)
    if node.op_type == "DequantizeLinear":
        return Apply("Mul", (given if shift == Literal(0.0) else Apply("Sub", (given, shift)), scale))
    rounded: Expression = Apply("Round", (Apply("Div", (given, scale)),))
    if shift != Literal(0.0):
        rounded = Apply("Add", (rounded, shift))
    lowest = -(1 << result.dtype.bitwidth - 1) if result.dtype.name.startswith("INT") else 0
    highest = lowest + (1 << result.dtype.bitwidth) - 1
    return Apply("Max", (Apply("Min", (rounded, Literal(float(highest)))), Literal(float(lowest))))


def result_view(lowering: Lowering, fused: Fused, out: View) -> View:
    """The group's result, seen through the rearrangements that follow the anchor: a copy where strides cannot say them,
    as of channels that become pixels. Its kernel is called before.
    """
    for node in fused.rearrangements:
        if node.op_type == "Transpose":
            out = out.transpose(permutation(node))
        else:
            out = lowering.reshaped(out, shape_of(node.outputs[0]))
    return out


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise UserError(f"operator {node.op_type} lacks input {index}, at {describe(node)}")
    return value
