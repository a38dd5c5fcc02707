"""Operator fusion: which nodes run as one kernel, decided once and written on the graph.

A group is an anchor (a convolution, a product, a normalisation, attention) with the elementwise work that
follows it: bias, timestep embedding, residual, activation, or the gate of a GEGLU (Shazeer, arXiv 2002.05202).
What reads a value in several places may follow as well, where all of it comes together again.
Elementwise nodes that no anchor can take form groups of their own. What could not be fused says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from pydantic import Field

from ..ir.formats import attends_integers, opens
from ..ir.groups import UNFUSED, Group, assign
from ..ir.operators import ANCHORS, CONVERSIONS, ELEMENTWISE, PRODUCTS, REARRANGING
from ..ir.program import Program
from .base import Context, Pass, PassConfig

WITHOUT_EPILOGUE = frozenset({"Attention"})
"""Anchors whose kernel stores its result itself."""

CARRIED = ELEMENTWISE.keys() | CONVERSIONS
"""Operators that run in the kernel of another."""


class FuseConfig(PassConfig):
    longest: int = Field(
        default=16, ge=1, le=64, description="Most nodes after an anchor in one group [nodes]."
    )


class Fuse(Pass[FuseConfig]):
    """Program -> the same program with a fusion group named on every node that computes."""

    name = "fuse"
    Config = FuseConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        counts: dict[str, Any] = {}
        for name, model in program.variants.items():
            groups = _decide(model.graph, self.config.longest)
            assign(model, groups)
            counts[name] = {"groups": len(groups), "fused_nodes": sum(len(one.nodes) - 1 for one in groups)}
        return program, counts


def _decide(graph: ir.Graph, longest: int) -> list[Group]:
    taken: set[ir.Node] = set()
    groups: list[list[ir.Node]] = []
    place = {node: index for index, node in enumerate(graph)}
    for node in graph:
        node.metadata_props.pop(UNFUSED, None)
    anchors = [node for node in graph if node.op_type in ANCHORS]
    others = [
        node
        for node in graph
        if node.op_type not in ANCHORS and node.op_type not in REARRANGING and not _feeds_products(node)
    ]
    for starts in (anchors, others):
        for node in starts:
            if node in taken:
                continue
            members = _grow(node, taken, longest, place)
            taken.update(members)
            groups.append(members)
    for first, *carried in groups:
        if first.op_type in CARRIED:
            first.metadata_props.setdefault(UNFUSED, "no heavier node before it can carry it")
        for node in carried:
            node.metadata_props.pop(UNFUSED, None)  # refused by one anchor, taken by another
    return [Group(str(index), tuple(members)) for index, members in enumerate(groups)]


def _grow(anchor: ir.Node, taken: set[ir.Node], longest: int, place: Mapping[ir.Node, int]) -> list[ir.Node]:
    """The anchor and what it can carry, in graph order. Trailing rearrangements stay outside."""
    members, kept = [anchor], 1
    if anchor.op_type not in ANCHORS and anchor.op_type not in CARRIED:
        return members
    if anchor.op_type in WITHOUT_EPILOGUE:
        return members
    value = anchor.outputs[0]
    while len(members) <= longest:
        step = _next(members, value, taken) or _joined(members, value, taken, place)
        if step is None or len(members) + len(step) > longest + 1:
            break
        members += step
        value = step[-1].outputs[0]
        if step[-1].op_type in CARRIED:
            kept = len(members)
    return members[:kept]


def _next(members: list[ir.Node], value: ir.Value, taken: set[ir.Node]) -> list[ir.Node] | None:
    """The node (or the gate) that reads ``value`` and may run in the same kernel as ``members``."""
    anchor = members[0]
    if members[-1].op_type == "QuantizeLinear":
        return None  # what is stored
    readers = list(dict.fromkeys(node for node, _ in value.uses()))
    if value.is_graph_output() or len(readers) != 1:
        return _refuse(readers, f"its input {value.name} is read in {len(readers)} places")
    reader = readers[0]
    if reader in taken:
        return None
    if reader.op_type == "Split" and anchor.op_type in ("MatMul", "Gemm"):
        rearranged = any(node.op_type in REARRANGING for node in members)
        return None if rearranged else _gate(reader, taken)
    if reader.op_type in REARRANGING:
        return [reader] if reader.inputs[0] is value and anchor.op_type in ANCHORS else None
    if reader.op_type not in CARRIED:
        return None
    if _shape(reader.outputs[0]) != _shape(value):
        return _refuse([reader], f"it broadcasts {value.name} to a larger shape")
    return [reader]


def _joined(
    members: list[ir.Node], value: ir.Value, taken: set[ir.Node], place: Mapping[ir.Node, int]
) -> list[ir.Node] | None:
    """Elementwise nodes, in graph order, through which all readers of ``value`` come together in the last of them."""
    if members[-1].op_type == "QuantizeLinear" or value.is_graph_output():
        return None
    found: list[ir.Node] = []
    waiting = {node for node, _ in value.uses()}
    while waiting:
        node = min(waiting, key=place.__getitem__)
        waiting.remove(node)
        if found and found[-1].outputs[0].is_graph_output():
            return None
        if node in taken or node.op_type not in CARRIED or _shape(node.outputs[0]) != _shape(value):
            return None
        found.append(node)
        if waiting:
            waiting |= {user for user, _ in node.outputs[0].uses()}
    return found or None


def _feeds_products(node: ir.Node) -> bool:
    """Whether a node only says what codes stand for that nothing but products, attention's among them, read."""
    result = node.outputs[0]
    only = all(
        place < 2 if user.op_type in PRODUCTS else place < 3 and attends_integers(user)
        for user, place in result.uses()
    )
    return opens(node) and only and not result.is_graph_output()


def _gate(split: ir.Node, taken: set[ir.Node]) -> list[ir.Node] | None:
    """Split, activation of one half, product with the other: the tail of a gated feed-forward layer."""
    rank = len(_shape(split.inputs[0]) or ())
    axis = split.attributes.get_int("axis", 0)
    if len(split.outputs) != 2 or axis not in (-1, rank - 1):
        return None
    if _shape(split.outputs[0]) != _shape(split.outputs[1]):
        return _refuse([split], "its halves differ in size")
    for plain, gated in (split.outputs, split.outputs[::-1]):
        activation = _only_reader(gated)
        if activation is None or activation.op_type not in ("Gelu", "Swish", "Sigmoid"):
            continue
        product = _only_reader(activation.outputs[0])
        if product is not None and product.op_type == "Mul" and _only_reader(plain) is product:
            members = [split, activation, product]
            return None if taken.intersection(members) else members
    return None


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = {node for node, _ in value.uses()}
    return readers.pop() if len(readers) == 1 and not value.is_graph_output() else None


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(value.shape.numpy())


def _refuse(nodes: list[ir.Node], reason: str) -> None:
    for node in nodes:
        if node.op_type in CARRIED or node.op_type == "Split":
            node.metadata_props[UNFUSED] = reason
