"""Loop-invariant code motion over the denoising loop: work moves to where its rate says it belongs.

Constant work is done when compiling, prompt work once a generation, step work once a timestep (a table). All
three are exact: the same operators run on the same numbers, only less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from ..ir.operators import REARRANGING
from ..ir.program import Program
from ..ir.rates import Rate, analyse
from .base import Context, Pass

CHEAP = REARRANGING | {"Expand", "Split", "Slice", "Identity"}
"""Operators that a kernel does by reading differently: carrying their result would only copy."""

VARIANT = {Rate.CONSTANT: "constant", Rate.PROMPT: "prompt", Rate.STEP: "step", Rate.SAMPLE: "full"}


class HoistConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hoist(Pass[HoistConfig]):
    """Program of one variant "full" -> the same program split by rate. Links are values of one name."""

    name = "hoist"
    Config = HoistConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        model = program.variants["full"]
        home = _homes(model.graph, analyse(model.graph, program.rates))
        variants = {
            name: _extract(model, name, [node for node in model.graph if home[node] is rate], home, rate)
            for rate, name in VARIANT.items()
            if rate is Rate.SAMPLE or any(found is rate for found in home.values())
        }
        effect = {"nodes": {name: len(list(one.graph)) for name, one in variants.items()}}
        return replace(program, variants=variants), effect


def _homes(graph: ir.Graph, rates: dict[str, Rate]) -> dict[ir.Node, Rate]:
    """Where each node runs: by its rate, except that a cheap node at the frontier stays with its readers."""
    home = {node: rates[str(node.outputs[0].name)] for node in graph}
    for node in reversed(list(graph)):
        stays = node.op_type in CHEAP and (home[node] is not Rate.CONSTANT or node.op_type == "Expand")
        readers = {home[user] for output in node.outputs for user, _ in output.uses()}
        if stays and len(readers) == 1 and not any(output.is_graph_output() for output in node.outputs):
            home[node] = readers.pop()
    return home


def _extract(
    model: ir.Model, name: str, nodes: Sequence[ir.Node], home: dict[ir.Node, Rate], rate: Rate
) -> ir.Model:
    """A model of its own for ``nodes``; what they read from elsewhere becomes inputs, what others read outputs."""
    graph = model.graph
    values: dict[ir.Value, ir.Value] = {}
    inputs: list[ir.Value] = []
    initializers: list[ir.Value] = []

    def copied(value: ir.Value) -> ir.Value:
        twin = ir.Value(
            name=value.name, type=value.type, shape=value.shape, const_value=value.const_value,
            metadata_props=dict(value.metadata_props),
        )  # fmt: skip
        values[value] = twin
        return twin

    def read(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in values:
            return None if value is None else values[value]
        (initializers if value.is_initializer() else inputs).append(copied(value))
        return values[value]

    made: list[ir.Node] = []
    for node in nodes:
        made.append(
            ir.Node(
                node.domain,
                node.op_type,
                [read(value) for value in node.inputs],
                node.attributes.values(),
                outputs=[copied(value) for value in node.outputs],
                name=node.name,
                metadata_props=dict(node.metadata_props),
            )
        )
    outputs = [
        values[value]
        for node in nodes
        for value in node.outputs
        if any(home[user] is not rate for user, _ in value.uses())
    ]
    if rate is Rate.SAMPLE:
        outputs = [read(value) for value in graph.outputs]  # type: ignore[misc]
    twin = ir.Graph(
        inputs, outputs, nodes=made, initializers=initializers, opset_imports=graph.opset_imports, name=name
    )
    return ir.Model(twin, ir_version=model.ir_version, producer_name=model.producer_name)
