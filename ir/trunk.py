"""The trunk of a UNet: the nodes that the noisy sample passes through, as a networkx graph.

What is known from the timestep, the prompt or the weights alone stands beside the trunk. Without it every
residual branch has one way in, so that dominators find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import onnx_ir as ir

from .errors import UserError

Resolution = tuple[int, int]
"""Height and width."""

SPATIAL = frozenset({"AveragePool", "Conv", "ConvTranspose", "GroupNormalization", "MaxPool", "Resize"})
"""Operators whose output is certain to be NCHW; what follows keeps the resolution however it is laid out."""


class Root:
    """Stands before the first nodes: where the sample comes in."""


ROOT = Root()


@dataclass(frozen=True)
class Trunk:
    """``graph`` has an edge for each value of the trunk, from the node that makes it to one that reads it.

    ``resolution`` is that of each node's output; tokens count as the picture that they were.
    """

    graph: nx.DiGraph[ir.Node | Root]
    resolution: dict[ir.Node | Root, Resolution]
    order: dict[ir.Node, int]

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """In the order of the model's graph."""
        return list(self.order)

    def sorted(self, nodes: Iterable[ir.Node | Root]) -> list[ir.Node]:
        """The nodes in the order of the model's graph, the root left out."""
        return sorted((node for node in nodes if isinstance(node, ir.Node)), key=self.order.__getitem__)

    def operands(self, node: ir.Node) -> list[ir.Value]:
        """The inputs of a trunk node that nodes of the trunk make, in order."""
        return [value for value in node.inputs if value is not None and value.producer() in self.order]

    def before(self, node: ir.Node) -> Set[ir.Node | Root]:
        """The node and all that it is computed from."""
        return nx.ancestors(self.graph, node) | {node}  # pyright: ignore[reportUnknownMemberType]

    def after(self, node: ir.Node | Root) -> Set[ir.Node | Root]:
        """The node and all that is computed from it."""
        return nx.descendants(self.graph, node) | {node}  # pyright: ignore[reportUnknownMemberType]

    def between(self, start: ir.Node, end: ir.Node) -> Set[ir.Node | Root]:
        """All on a way from one node to the other, both included; empty if there is none."""
        return self.after(start) & self.before(end)

    @cached_property
    def dominators(self) -> dict[ir.Node | Root, ir.Node | Root | None]:
        """For each node the last one before it that every way from the sample to it goes through."""
        return nx.immediate_dominators(self.graph, ROOT)

    @property
    def deepest(self) -> Resolution:
        return min(self.resolution.values(), key=lambda size: size[0] * size[1])


def trunk(graph: ir.Graph) -> Trunk:
    """The trunk of a canonical graph.

    The sample is every input of the height and width of an output. Raises UserError if there is none.
    """
    pictures = {size for value in graph.outputs if (size := _picture(value))}
    carriers = {value: size for value in graph.inputs if (size := _picture(value)) in pictures and size}
    if not carriers:
        raise UserError(
            f"model {graph.name} is not a UNet: no input has the height and width of an output; "
            "a UNet reads a noisy picture and gives one of the same size."
        )
    network: nx.DiGraph[ir.Node | Root] = nx.DiGraph()
    resolution: dict[ir.Node | Root, Resolution] = {ROOT: max(carriers.values())}
    made: dict[ir.Value, ir.Node | Root] = dict.fromkeys(carriers, ROOT)
    order: dict[ir.Node, int] = {}
    for node in graph:
        sources = [made[value] for value in node.inputs if value in made]
        if not sources:
            continue
        network.add_edges_from((source, node) for source in sources)
        own = _picture(node.outputs[0]) if node.op_type in SPATIAL else None
        resolution[node] = own or resolution[sources[0]]
        order[node] = len(order)
        made.update(dict.fromkeys(node.outputs, node))
    return Trunk(network, resolution, order)


def maker(value: ir.Value) -> ir.Node:
    """The node that makes a value of the trunk."""
    node = value.producer()
    assert node is not None
    return node


def _picture(value: ir.Value) -> Resolution | None:
    """Height and width of an NCHW value of more than one position."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    if isinstance(height, int) and isinstance(width, int) and height * width > 1:
        return height, width
    return None
