"""Loop-invariant code motion over the denoising loop: work moves to where its rate says it belongs.

Constant work is done when compiling, prompt work once a generation, step work once a timestep (a table). All
three are exact: the same operators run on the same numbers, only less often.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Set
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from ..ir.formats import opens
from ..ir.operators import VIEWS
from ..ir.program import PROLOGUE, Program
from ..ir.rates import Rate, analyse
from .base import Context, Pass, PassConfig, apply

CHEAP = VIEWS | {"Identity"}
"""Operators that a kernel does by reading differently, as it opens codes: carrying their result would only copy."""

WIDENING = frozenset({"Expand"})
"""Those whose result, as that of codes, takes more memory than what they read."""

VARIANT = {Rate.CONSTANT: "constant", Rate.PROMPT: "prompt", Rate.STEP: "step"}


class Hoist(Pass[PassConfig]):
    """Program of alternatives -> the same split by rate. What the alternatives share is done once for all of them."""

    name = "hoist"
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        graphs = {name: program.variants[name].graph for name in program.alternatives}
        names = _Names(graphs.values())
        drafts = {name: _Draft() for name in (*PROLOGUE, *graphs)}
        for alternative, graph in graphs.items():
            home = _homes(graph, analyse(graph, program.rates))
            for node in graph:
                place = alternative if home[node] is Rate.SAMPLE else VARIANT[home[node]]
                names.settle(node, alternative, shared=place in PROLOGUE)
                drafts[place].add(node, names)
                for output in node.outputs:
                    if any(home[user] is not home[node] for user, _ in output.uses()):
                        drafts[place].read_elsewhere.add(names.of(output))
            drafts[alternative].outputs = [drafts[alternative].read(value, names) for value in graph.outputs]
        variants = {
            name: draft.model(name, program.variants["full"])
            for name, draft in drafts.items()
            if draft.nodes or name in graphs
        }
        split = replace(program, variants=variants)
        carried = {(link.source, link.value) for link in split.links()}
        effect = {
            "nodes": {name: len(one.graph) for name, one in variants.items()},
            "carried_bytes": {
                name: sum(_size_bytes(value) for value in one.graph.outputs if (name, value.name) in carried)
                for name, one in variants.items()
                if name in PROLOGUE
            },
        }
        return split, effect


def hoisted(program: Program) -> Program:
    """The program as it runs in a loop, where all that steps share is done once."""
    return apply([Hoist()], program, Context())


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


class _Names:
    """What values are called in the variants. Two alternatives that compute the same under one name share it; where
    they compute something else, the later one's gets another name.
    """

    def __init__(self, graphs: Iterable[ir.Graph]) -> None:
        graphs = list(graphs)
        self._shared = {name for graph in graphs for name in graph.initializers}
        fixed = (str(value.name) for graph in graphs for value in (*graph.inputs, *graph.outputs))
        self._taken = self._shared.union(fixed)
        self._made: dict[Hashable, list[str]] = {}
        self._called: dict[ir.Value, str] = {}

    def of(self, value: ir.Value) -> str:
        return self._called.get(value, str(value.name))

    def settle(self, node: ir.Node, alternative: str, *, shared: bool) -> None:
        """Name what a node gives, in the order of its graph."""
        own = [str(value.name) for value in node.outputs]
        if shared:
            key = (_computed(node), *(None if one is None else self.of(one) for one in node.inputs), *own)
            if key not in self._made:
                self._made[key] = [self._free(name, alternative, self._taken) for name in own]
                self._shared.update(self._made[key])
            found = self._made[key]
        else:
            found = [self._free(name, alternative, self._shared) for name in own]
        self._taken.update(found)
        self._called.update(zip(node.outputs, found, strict=True))

    def _free(self, name: str, alternative: str, taken: Set[str]) -> str:
        return f"{name}@{alternative}" if name and name in taken else name


def _computed(node: ir.Node) -> Hashable:
    attributes = (ir.serde.serialize_attribute(one) for one in node.attributes.values())
    return node.domain, node.op_type, *sorted(one.SerializeToString(deterministic=True) for one in attributes)


class _Draft:
    """A variant while it is made: its inputs come from elsewhere, its outputs are read elsewhere."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.outputs: list[ir.Value] = []
        self.read_elsewhere: set[str] = set()
        self._values: dict[str, ir.Value] = {}
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []

    def add(self, node: ir.Node, names: _Names) -> None:
        """Copy a node, unless an alternative before gave the same."""
        first = node.outputs[0]
        if names.of(first) in self._values:
            return
        renamed = names.of(first).removeprefix(str(first.name))
        self.nodes.append(
            ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else self.read(value, names) for value in node.inputs],
                node.attributes.values(),
                outputs=[self._copied(value, names) for value in node.outputs],
                name=node.name and node.name + renamed,
                metadata_props=dict(node.metadata_props),
            )
        )

    def read(self, value: ir.Value, names: _Names) -> ir.Value:
        if (name := names.of(value)) not in self._values:
            place = self._initializers if value.is_initializer() else self._inputs
            place.append(self._copied(value, names))
        return self._values[name]

    def model(self, name: str, like: ir.Model) -> ir.Model:
        made = (value for node in self.nodes for value in node.outputs)
        outputs = self.outputs or [value for value in made if value.name in self.read_elsewhere]
        graph = ir.Graph(
            self._inputs, outputs, nodes=self.nodes, initializers=self._initializers,
            opset_imports=like.graph.opset_imports, name=name,
        )  # fmt: skip
        return ir.Model(graph, ir_version=like.ir_version, producer_name=like.producer_name)

    def _copied(self, value: ir.Value, names: _Names) -> ir.Value:
        name = names.of(value)
        self._values[name] = ir.Value(
            name=name, type=value.type, shape=value.shape, const_value=value.const_value,
            metadata_props=dict(value.metadata_props),
        )  # fmt: skip
        return self._values[name]
