"""Stored formats: what kernels leave in memory for each other, in fewer bits.

A value that is stored in a format is cast to it at the end of the group that computes it and cast back for its
readers, so that the program says exactly which numbers are rounded and the referee computes with the same. Sums stay
in float32. The weights of a product are rounded where what they are multiplied with is.

A format that ends before float32 does holds no number beyond its end. What is that large in the calls that there are
stays in float32, values and weights alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any, Literal

import onnx_ir as ir
from pydantic import Field

from ..ir.groups import GROUP, ROLE, Group, groups
from ..ir.making import reroute
from ..ir.modules import module_path
from ..ir.operators import PRODUCTS, VIEWS
from ..ir.program import Program
from .base import Context, Pass, PassConfig
from .measuring import largest, output_error

FORMATS = {"bfloat16": ir.DataType.BFLOAT16, "float16": ir.DataType.FLOAT16}

ENDS = {"bfloat16": math.inf, "float16": 65504.0}
"""The largest number of each; bfloat16's is as good as float32's."""

ONCE = ("constant", "step")
"""Variants whose results are few and read often."""


class StoreConfig(PassConfig):
    format: Literal["bfloat16", "float16"] = Field(
        description="What values between kernels, and weights, are rounded to."
    )
    smallest: int = Field(
        default=4096, ge=1, description="Values of fewer elements stay as they are [elements]."
    )
    headroom: float = Field(
        default=4.0,
        ge=1,
        description="How many times the largest number seen in a value the format has to reach: other calls have "
        "larger ones [1].",
    )
    half_run: int = Field(
        default=0,
        ge=0,
        description="Most products of stored numbers that the target adds up in the format [products].",
    )


class Store(Pass[StoreConfig]):
    """Fused program -> the same with values of all variants but ``ONCE``, and weights, stored in ``format``.

    What that does to the output is measured where there are calls to measure it by. Layers that give, or multiply with,
    more than the format holds are named in the history as ``wide``, by their modules where these are known.
    """

    name = "store"
    Config = StoreConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.calibration or ()
        before = program.copy() if calls else program
        looped = {name: model.graph for name, model in program.variants.items() if name not in ONCE}
        returned = {value for name in program.alternatives for value in program.returned(name)}
        stored = [
            (looped[name], group)
            for name in looped
            for group in groups(program.variants[name])
            if self._applies(group, returned)
        ]
        constants = _constants(program)
        peaks = self._peaks(program, [group for _, group in stored], constants, context)
        wide: dict[str, None] = {}
        ranges: dict[ir.Value, float] = {}
        for graph, group in stored:
            peak = peaks.get(str(group.result.name), 0.0)
            if peak * self.config.headroom > ENDS[self.config.format]:
                wide[_layer(group.anchor)] = None
            else:
                ranges[self._store(graph, group)] = peak
        weights = sum(self._round_weights(graph, constants, peaks, ranges, wide) for graph in looped.values())
        effect: dict[str, Any] = {"values": len(ranges), "weights": weights}
        if wide:
            effect["wide"] = list(wide)
        if calls:
            effect["output_error"] = output_error(context, before, program, calls)
        return program, effect

    def _applies(self, group: Group, returned: Set[ir.Value]) -> bool:
        """Whether a group's result may be stored in the format; what is ``returned`` is the caller's."""
        result = group.result
        size = math.prod(result.shape.numpy()) if result.shape is not None else 0
        large = result.dtype is ir.DataType.FLOAT and size >= self.config.smallest
        return large and group.outputs == [result] and result not in returned

    def _peaks(
        self, program: Program, stored: list[Group], constants: Set[str], context: Context
    ) -> dict[str, float]:
        """The largest number of every value to be stored and of every weight, by name, as far as calls show them."""
        if math.isinf(ENDS[self.config.format]) or not (context.calibration or context.drawn):
            return {}
        calls = context.calibration or (context.drawn() if context.drawn else ())
        weights = {
            str(node.inputs[1].name)
            for model in program.variants.values()
            for node in model.graph
            if node.op_type in PRODUCTS and node.inputs[1] is not None and node.inputs[1].name in constants
        }
        names = [*dict.fromkeys(str(group.result.name) for group in stored), *sorted(weights)]
        return largest(context, program, names, calls)

    def _store(self, graph: ir.Graph, group: Group) -> ir.Value:
        """Cast the group's result at its end, and back for its readers; gives what these read."""
        result = group.result
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
        return wide.outputs[0]

    def _round_weights(
        self,
        graph: ir.Graph,
        constants: Set[str],
        peaks: Mapping[str, float],
        ranges: Mapping[ir.Value, float],
        wide: dict[str, None],
    ) -> int:
        """``ranges`` are the peaks of values that are stored, by what their readers read."""
        rounded: dict[str, ir.Value] = {}
        for node in list(graph):
            if node.op_type not in PRODUCTS or not _is_widened(origin := _origin(node.inputs[0])):
                continue
            weight = node.inputs[1]
            if weight is None or str(weight.name) not in constants:
                continue
            peak = peaks.get(str(weight.name), 0.0)
            sums = self.config.half_run * peak * ranges.get(origin, 0.0) if origin is not None else 0.0
            if max(peak, sums) > ENDS[self.config.format]:
                wide[_layer(node)] = None
                continue
            if str(weight.name) not in rounded:
                narrow, opened = self._casts(weight)
                graph.insert_before(node, [narrow, opened])
                rounded[str(weight.name)] = opened.outputs[0]
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


def _layer(node: ir.Node) -> str:
    return module_path(node) or str(node.outputs[0].name)


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
