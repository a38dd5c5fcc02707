"""Stored formats: what kernels leave in memory for each other, in fewer bits.

A value that is stored in a format is cast to it at the end of the group that computes it and cast back for its
readers, so that the program says exactly which numbers are rounded and the referee computes with the same. Sums stay
in float32. The weights of a product are rounded where what they are multiplied with is.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any, Literal

import onnx_ir as ir
from pydantic import Field

from ..ir.groups import GROUP, ROLE, Group, groups
from ..ir.making import reroute
from ..ir.operators import PRODUCTS, VIEWS
from ..ir.program import Program
from .base import Context, Pass, PassConfig
from .measuring import output_error

FORMATS = {"bfloat16": ir.DataType.BFLOAT16, "float16": ir.DataType.FLOAT16}

ONCE = ("constant", "step")
"""Variants whose results are few and read often."""


class StoreConfig(PassConfig):
    format: Literal["bfloat16", "float16"] = Field(
        description="What values between kernels, and weights, are rounded to."
    )
    smallest: int = Field(
        default=4096, ge=1, description="Values of fewer elements stay as they are [elements]."
    )


class Store(Pass[StoreConfig]):
    """Fused program -> the same with values of all variants but ``ONCE``, and weights, stored in ``format``.

    What that does to the output is measured where there are calls to measure it by.
    """

    name = "store"
    Config = StoreConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.calibration or ()
        before = program.copy() if calls else program
        looped = {name: model.graph for name, model in program.variants.items() if name not in ONCE}
        returned = {value for name in program.alternatives for value in program.returned(name)}
        values = sum(
            self._store(graph, group, returned)
            for name, graph in looped.items()
            for group in groups(program.variants[name])
        )
        constants = _constants(program)
        weights = sum(self._round_weights(graph, constants) for graph in looped.values())
        effect: dict[str, Any] = {"values": values, "weights": weights}
        if calls:
            effect["output_error"] = output_error(context, before, program, calls)
        return program, effect

    def _store(self, graph: ir.Graph, group: Group, returned: Set[ir.Value]) -> bool:
        """Cast the group's result at its end, and back for its readers."""
        result = group.result
        size = math.prod(result.shape.numpy()) if result.shape is not None else 0
        if result.dtype is not ir.DataType.FLOAT or size < self.config.smallest or group.outputs != [result]:
            return False
        if result in returned:
            return False  # the caller's
        readers = list(result.uses())
        narrow, wide = self._casts(result)
        last = group.nodes[-1]
        narrow.metadata_props.update({GROUP: last.metadata_props[GROUP], ROLE: "epilogue"})
        graph.insert_after(last, [narrow, wide])
        reroute(readers, wide.outputs[0])
        for index, output in enumerate(graph.outputs):
            if output is result:
                # Other variants know it by its name, and get what was rounded.
                graph.outputs[index] = wide.outputs[0]
                result.name, wide.outputs[0].name = f"{result.name}.exact", result.name
        return True

    def _round_weights(self, graph: ir.Graph, constants: set[str]) -> int:
        rounded: dict[str, ir.Value] = {}
        for node in list(graph):
            if node.op_type not in PRODUCTS or not _is_widened(_origin(node.inputs[0])):
                continue
            weight = node.inputs[1]
            if weight is None or str(weight.name) not in constants:
                continue
            if str(weight.name) not in rounded:
                narrow, wide = self._casts(weight)
                graph.insert_before(node, [narrow, wide])
                rounded[str(weight.name)] = wide.outputs[0]
            node.replace_input_with(1, rounded[str(weight.name)])
        return len(rounded)

    def _casts(self, value: ir.Value) -> tuple[ir.Node, ir.Node]:
        """To the format and back."""
        made: list[ir.Node] = []
        for dtype, suffix in ((FORMATS[self.config.format], self.config.format), (ir.DataType.FLOAT, "wide")):
            before = made[-1].outputs[0] if made else value
            node = ir.node("Cast", [before], {"to": int(dtype)}, name=f"{value.name}.{suffix}")
            node.outputs[0].name = f"{value.name}.{suffix}"
            node.outputs[0].dtype = dtype
            node.outputs[0].shape = value.shape
            made.append(node)
        return made[0], made[1]


def _constants(program: Program) -> set[str]:
    """Names of what is known when compiling."""
    names = {name for model in program.variants.values() for name in model.graph.initializers}
    if "constant" in program.variants:
        names |= {str(value.name) for value in program.variants["constant"].graph.outputs}
    return names


def _origin(value: ir.Value | None) -> ir.Value | None:
    """Where the numbers of a value were computed."""
    while value is not None and (node := value.producer()) is not None and node.op_type in VIEWS:
        value = node.inputs[0]
    return value


def _is_widened(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype in FORMATS.values()
