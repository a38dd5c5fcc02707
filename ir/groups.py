"""Fusion groups: which nodes run as one kernel, written on the graph as metadata.

Both the code generators and the hardware model read them, so that what is measured and what is modelled are
the same program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from .borders import inputs_of, outputs_of
from .operators import ANCHORS, REARRANGING

GROUP = "fick.group"
ROLE = "fick.role"
UNFUSED = "fick.unfused"


@dataclass(frozen=True)
class Group:
    """Nodes that run as one kernel, in graph order, the anchor first among those that compute."""

    id: str
    nodes: tuple[ir.Node, ...]

    @property
    def anchor(self) -> ir.Node:
        return next((node for node in self.nodes if node.op_type in ANCHORS), self.nodes[0])

    @property
    def kind(self) -> str:
        return self.anchor.op_type

    @property
    def result(self) -> ir.Value:
        """What the last node computes."""
        return self.nodes[-1].outputs[0]

    @property
    def inputs(self) -> list[ir.Value]:
        """Values read from outside, each once, in order of first use."""
        return inputs_of(self.nodes)

    @property
    def outputs(self) -> list[ir.Value]:
        """Values used outside of the group or by the graph's caller."""
        return outputs_of(self.nodes)


def assign(model: ir.Model, decided: Iterable[Group]) -> None:
    """Write the groups on the graph's nodes, replacing what was there."""
    for node in model.graph:
        node.metadata_props.pop(GROUP, None)
        node.metadata_props.pop(ROLE, None)
    for group in decided:
        for node in group.nodes:
            node.metadata_props[GROUP] = group.id
            follower = "view" if node.op_type in REARRANGING else "epilogue"
            node.metadata_props[ROLE] = "anchor" if node is group.anchor else follower


def groups(model: ir.Model) -> list[Group]:
    """The graph's groups, by the position of their last node."""
    members: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        if (identifier := node.metadata_props.get(GROUP)) is not None:
            found = members.pop(identifier, [])
            members[identifier] = [*found, node]
    return [Group(identifier, tuple(nodes)) for identifier, nodes in members.items()]
