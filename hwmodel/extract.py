"""From a fused program to its workload: one walk over the groups of each variant."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import reduce

import onnx_ir as ir

from ..ir import annotations, attention, blocks
from ..ir.errors import UserError
from ..ir.formats import format_of, opens
from ..ir.groups import Group, groups
from ..ir.modules import module_path
from ..ir.naming import LAYER, MODULES
from ..ir.operators import CONVERSIONS, ELEMENTWISE, VIEWS
from ..ir.program import Program
from ..ir.rates import Rate, analyse
from ..ir.shapes import shape_of
from .bounds import convolution, gemm, given, matmul, normalised
from .specs import Bits
from .workload import (
    Fused,
    Gemm,
    Kind,
    Operand,
    Operation,
    TensorClass,
    Vectors,
    Workload,
)

FREE = VIEWS | {"Identity"}
"""Operators that an address generator does by reading elsewhere."""

KINDS = {
    "Conv": Kind.CONVOLUTION,
    "ConvTranspose": Kind.CONVOLUTION,
    "Gemm": Kind.MATMUL,
    "MatMul": Kind.MATMUL,
    "GroupNormalization": Kind.NORMALISATION,
    "LayerNormalization": Kind.NORMALISATION,
    "Softmax": Kind.SOFTMAX,
}

NONLINEAR = frozenset({"Cos", "Erf", "Exp", "Gelu", "Log", "Sigmoid", "Sin", "Swish", "Tanh"})
"""Elementwise operators that take a lookup or a polynomial rather than an adder or a multiplier."""

SCORE_CLASSES = {"self": TensorClass.SELF_SCORES, "cross": TensorClass.CROSS_SCORES}
SCORES = frozenset(SCORE_CLASSES.values())

FUSED_NAMES = {"Swish": "silu", "Gelu": "gelu"}

STAGES = {"down_stage": "down", "up_stage": "up", "mid": "mid", "transformer": "layer"}
"""What a step is told by: the stages of a UNet, or where there are none the layers of a transformer."""

STAGE_MODULES = [
    (re.compile(rf"(?:.*\.)?{pattern}(?:\.|$)"), kind)
    for pattern, kind in [*MODULES, (LAYER, "transformer")]
    if kind
]


def extract(program: Program, native: Bits) -> Workload:
    """The workload of a fused program. A tensor that the program does not quantise has ``native`` bits.

    What neither sums products nor normalises nor is elementwise counts as movement: it reads and writes. Raises
    UserError if a variant computes but is not fused, or if a shape is not static.
    """
    rates = _rates(program)
    # What one variant reads of another is traced on to where it was made, and state to where "full" leaves it.
    makers = {str(value.name): value for model in program.variants.values() for value in model.graph.outputs}
    makers |= program.state_left("full")
    variants: dict[str, tuple[Operation, ...]] = {}
    for name, model in program.variants.items():
        variants[name] = _Walk(name, model, rates[name], native, makers).operations()
    ending = {
        name: reduce(
            Rate.join, (rates[name][str(value.name)] for value in model.graph.outputs), Rate.CONSTANT
        )
        for name, model in program.variants.items()
    }
    schedule = {steps: tuple(run) for steps, run in program.schedule.items()}
    return Workload(program.name, variants, ending, schedule)


def _rates(program: Program) -> dict[str, dict[str, Rate]]:
    """The rate of every value by variant: what crosses from variant to variant keeps its rate."""
    known = dict(program.rates)
    while True:
        found = {name: analyse(model.graph, known) for name, model in program.variants.items()}
        crossing = {
            str(value.name): found[name][str(value.name)]
            for name, model in program.variants.items()
            for value in model.graph.outputs
        }
        if crossing.items() <= known.items():
            return found
        known |= crossing


class _Walk:
    """One variant's groups as operations."""

    def __init__(
        self,
        variant: str,
        model: ir.Model,
        rates: Mapping[str, Rate],
        native: Bits,
        makers: Mapping[str, ir.Value],
    ) -> None:
        self.variant, self.model, self.rates, self.native = variant, model, rates, native
        self.makers = makers

    def operations(self) -> tuple[Operation, ...]:
        found = groups(self.model)
        if not found and any(node.op_type not in FREE for node in self.model.graph):
            raise UserError(
                f"variant {self.variant} of the program is not fused; run the pass fuse before estimating."
            )
        stages = self._stages(found)
        made = [
            replace(operation, group=group.id, variant=self.variant, stage=stages[group.id])
            for group in found
            if not all(node.op_type in FREE or _converts(node) for node in group.nodes)
            for operation in self._expand(group)
        ]
        readers = Counter(operand.value for operation in made for operand in operation.read())
        readers.update(str(self._source(value)[0].name) for value in self.model.graph.outputs)
        return tuple(replace(one, readers=readers[one.result.value]) for one in made)

    def _stages(self, found: list[Group]) -> dict[str, str]:
        """Stage of each group: by module path where there is one, else by the shape of the graph."""
        if self.variant in ("constant", "prompt", "step"):
            return {group.id: self.variant for group in found}
        paths = {group.id: module_path(group.anchor) for group in found}
        named = {identifier: _stage_of(path) for identifier, path in paths.items()}
        if not any(stage.startswith(("down", "layer")) for stage in named.values()):
            named = self._stages_by_shape(found)
        order = [group.id for group in found]
        staged = [index for index, identifier in enumerate(order) if named[identifier]]
        first = staged[0] if staged else 0
        return {
            identifier: named[identifier] or ("in" if index < first else "out")
            for index, identifier in enumerate(order)
        }

    def _stages_by_shape(self, found: list[Group]) -> dict[str, str]:
        try:
            anatomy = blocks.discover(self.model.graph)
        except UserError:  # Not a UNet: an estimate does not need it to be one.
            return {group.id: "" for group in found}
        member: dict[ir.Node, str] = {}
        for block in [one for one in anatomy.blocks if one.kind in STAGES]:
            number = f" {block.name.rpartition('.')[2]}" if block.kind != "mid" else ""
            for node in block.nodes:
                member.setdefault(node, STAGES[block.kind] + number)
        return {group.id: member.get(group.anchor, "") for group in found}

    def _expand(self, group: Group) -> Iterator[Operation]:
        node = group.anchor
        name = module_path(node) or str(node.name or node.outputs[0].name)
        if node.op_type == "Attention":
            yield from self._attention(name, node, self._operand(node.outputs[0]))
            return
        result = self._operand(group.outputs[-1])
        operands = given(node)
        kind = KINDS.get(node.op_type) or _elementwise_kind(group)
        match kind:
            case Kind.CONVOLUTION:
                bounds, main = convolution(node), operands[:2]
            case Kind.MATMUL:
                bounds, main = (gemm if node.op_type == "Gemm" else matmul)(node), operands[:2]
            case Kind.NORMALISATION | Kind.SOFTMAX:
                bounds, main = normalised(node), operands[:1]
            case _:
                # A group of elementwise work has no anchor: everything it reads is an operand.
                yield Operation(
                    name, kind, Vectors(1, result.elements), tuple(map(self._operand, group.inputs)), result
                )
                return
        constants = "scale and shift" if kind is Kind.NORMALISATION else "bias"
        own = [Fused(constants, self._operand(value)) for value in operands[len(main) :]]
        read = tuple(map(self._operand, main))
        if kind is Kind.MATMUL and SCORES & {result.tensor_class, *(one.tensor_class for one in read)}:
            kind = Kind.SCORES if result.tensor_class in SCORES else Kind.VALUES
        whole = Operation(name, kind, bounds, read, result, (*own, *self._fused(group)))
        yield from whole.by_precision(self._row_bits(main[0]))

    def _attention(self, name: str, node: ir.Node, result: Operand) -> Iterator[Operation]:
        """softmax(Q K^T) V as three operations. Keys that do not depend on the sample come from a prompt."""
        query, key, value = (self._operand(operand) for operand in given(node)[:3])
        size = attention.sizes(node)
        tensor_class = TensorClass.SELF_SCORES
        if self.rates[str(given(node)[1].name)] is not Rate.SAMPLE:
            tensor_class = TensorClass.CROSS_SCORES
        count, bits = size.batch * size.heads, self.native.of(tensor_class)
        raw, scores = (
            Operand(f"{result.value}/{part}", count * size.queries * size.keys, bits, tensor_class)
            for part in ("qk", "softmax")
        )
        mask = [Fused("mask", self._operand(operand)) for operand in node.inputs[3:4] if operand is not None]
        product = Gemm(count, size.queries, size.wide, size.keys)
        yield Operation(f"{name}/qk", Kind.SCORES, product, (query, key), raw, tuple(mask))
        yield Operation(
            f"{name}/softmax", Kind.SOFTMAX, Vectors(count * size.queries, size.keys), (raw,), scores
        )
        product = Gemm(count, size.queries, size.keys, size.deep)
        yield Operation(f"{name}/pv", Kind.VALUES, product, (scores, value), result)

    def _fused(self, group: Group) -> Iterator[Fused]:
        """The work that follows the anchor, by what it is for rather than by what it computes."""
        inside = {output for node in group.nodes for output in node.outputs}
        for node in group.nodes:
            if node is group.anchor or node.op_type in FREE or _converts(node):
                continue
            outside = [value for value in node.inputs if value is not None and value not in inside]
            if not outside:
                yield Fused(FUSED_NAMES.get(node.op_type, node.op_type.lower()))
            for value in outside:
                yield Fused(self._purpose(node, value), self._operand(value))

    def _purpose(self, node: ir.Node, value: ir.Value) -> str:
        if node.op_type != "Add":
            return node.op_type.lower()
        rate = self.rates[str(value.name)]
        return {Rate.CONSTANT: "bias", Rate.STEP: "timestep add"}.get(rate, "residual")

    def _operand(self, value: ir.Value) -> Operand:
        source, bits = self._source(value)
        tensor_class = TensorClass.ACTIVATIONS
        if self.rates[str(value.name)] is Rate.CONSTANT:
            tensor_class = TensorClass.WEIGHTS
        elif annotations.SCORES in source.metadata_props:
            tensor_class = SCORE_CLASSES[source.metadata_props[annotations.SCORES]]
        bits = bits or _stored_bits(source) or self.native.of(tensor_class)
        packed = annotations.stored_bits(source)
        return Operand(str(source.name), math.prod(shape_of(value)), bits, tensor_class, packed)

    def _source(self, value: ir.Value) -> tuple[ir.Value, int | None]:
        """The value that views and conversions show, and its bits if it is dequantised on the way."""
        bits = None
        while True:
            node = value.producer()
            made = self.makers.get(str(value.name), value)
            if node is not None and (node.op_type in FREE or _converts(node)):
                bits = bits or max(annotations.row_bits(value), default=None)
                shown = given(node)[1 if node.op_type == "Where" else 0]
                if opens(node):
                    bits = bits or _code_bits(shown)
                elif _recasts(node):
                    bits = bits or min(_width(shown), _width(value))
                value = shown
            elif node is None and made is not value:
                value = made
            else:
                return value, bits

    def _row_bits(self, value: ir.Value) -> dict[int, Fraction]:
        """Shares of rows by precision, if a choice between precisions is what views show."""
        while (node := value.producer()) is not None and node.op_type in FREE:
            value = given(node)[0]
        return annotations.row_bits(value)


def _converts(node: ir.Node) -> bool:
    """Whether a node changes nothing but the number format."""
    return (
        node.op_type in CONVERSIONS
        or opens(node)
        or _recasts(node)
        or bool(annotations.row_bits(node.outputs[0]))
    )


def _code_bits(codes: ir.Value) -> int | None:
    """Of an element that is kept as the code of a number."""
    format = format_of(codes)
    return annotations.bits(codes) if format is None else format.bits


def _recasts(node: ir.Node) -> bool:
    """Whether a node rounds numbers to another floating-point format, or widens them again."""
    types = [value.dtype for value in (given(node)[0], node.outputs[0])] if node.op_type == "Cast" else []
    return bool(types) and all(one is not None and one.is_floating_point() for one in types)


def _width(value: ir.Value) -> int:
    assert value.dtype is not None
    return value.dtype.bitwidth


def _stage_of(path: str) -> str:
    for pattern, kind in STAGE_MODULES:
        if found := pattern.match(path):
            number = re.search(r"\d+", found[0])
            return f"{STAGES[kind]} {number[0]}" if number else STAGES[kind]
    return ""


def _stored_bits(value: ir.Value) -> int | None:
    """Bits of a result that every reader wants quantised: the widest of them."""
    widths: list[int] = []
    for node, _ in value.uses():
        output = node.outputs[0]
        if node.op_type == "QuantizeLinear" and (width := annotations.bits(output)) is not None:
            widths.append(width)
        elif node.op_type in FREE and (below := _stored_bits(output)) is not None:
            widths.append(below)
        else:
            return None
    return max(widths, default=None)


def _elementwise_kind(group: Group) -> Kind:
    operators = {node.op_type for node in group.nodes}
    if operators & NONLINEAR:
        return Kind.ACTIVATION
    return Kind.ELEMENTWISE if operators & ELEMENTWISE.keys() else Kind.MOVEMENT
