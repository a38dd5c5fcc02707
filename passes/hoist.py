"""Loop-invariant code motion over the denoising loop: work moves to where its rate says it belongs.

Constant work is done when compiling, prompt work once a generation, step work once a timestep (a table). All
three are exact: the same operators run on the same numbers, only less often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from ..ir.formats import opens
from ..ir.operators import VIEWS
from ..ir.program import Program
from ..ir.rates import Rate, analyse
from .base import Context, Pass

CHEAP = VIEWS | {"Identity"}
"""Operators that a kernel does by reading differently, as it opens codes: carrying their result would only copy."""

WIDENING = frozenset({"Expand"})
"""Those whose result, as that of codes, takes more memory than what they read."""

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
        hoisted = replace(program, variants=variants)
        carried = {(link.source, link.value) for link in hoisted.links()}
        effect = {
            "nodes": {name: len(one.graph) for name, one in variants.items()},
            "carried_bytes": {
                name: sum(_size_bytes(value) for value in one.graph.outputs if (name, value.name) in carried)
                for name, one in variants.items()
                if name != VARIANT[Rate.SAMPLE]
            },
        }
        return hoisted, effect


def _homes(graph: ir.Graph, rates: dict[str, Rate]) -> dict[ir.Node, Rate]:
    """Where each node runs: by its rate, except that a cheap node at the frontier stays with its readers.

    What the model returns is the sample's, whatever it depends on, and so is everything that reads it.
    """
    home: dict[ir.Node, Rate] = {}
    for node in graph:
        returned = any(output.is_graph_output() for output in node.outputs)
        late = any(home[before] is Rate.SAMPLE for before in node.predecessors())
        home[node] = Rate.SAMPLE if returned or late else rates[str(node.outputs[0].name)]
    for node in reversed(graph):
        readers = {home[user] for output in node.outputs for user, _ in output.uses()}
        widens = node.op_type in WIDENING or opens(node)
        stays = widens or (node.op_type in CHEAP and home[node] is not Rate.CONSTANT)
        if stays and len(readers) == 1:
            home[node] = readers.pop()
    return home


def _size_bytes(value: ir.Value) -> int:
    assert value.shape is not None and value.dtype is not None and value.shape.is_static()
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)


def _extract(
    model: ir.Model, name: str, nodes: Sequence[ir.Node], home: dict[ir.Node, Rate], rate: Rate
) -> ir.Model:
    """A model of its own for ``nodes``: its inputs come from elsewhere, its outputs are read elsewhere."""
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

    def read(value: ir.Value) -> ir.Value:
        if value not in values:
            (initializers if value.is_initializer() else inputs).append(copied(value))
        return values[value]

    made: list[ir.Node] = []
    for node in nodes:
        made.append(
            ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else read(value) for value in node.inputs],
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
        outputs = [read(value) for value in graph.outputs]
    twin = ir.Graph(
        inputs, outputs, nodes=made, initializers=initializers, opset_imports=graph.opset_imports, name=name
    )
    return ir.Model(twin, ir_version=model.ir_version, producer_name=model.producer_name)
