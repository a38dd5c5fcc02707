"""What is learned together: quantised weights, and the region of the graph whose results tell how well they do.

A region is a block of the UNet (BRECQ, Li et al., arXiv 2102.05426, section 3.2), or a product by itself where
there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from ...ir.blocks import Kind, discover
from ...ir.borders import inputs_of, outputs_of
from ...ir.making import Maker
from ...ir.program import Program
from ...ir.rates import Rate, analyse
from .kept import Integers

Extent = Literal["layer", "part", "block"]

KINDS: dict[Extent, tuple[Kind, ...]] = {
    "layer": (),
    "part": ("resnet", "attention", "feed_forward"),
    "block": ("resnet", "transformer", "attention", "feed_forward"),
}
"""Kinds of block that are one region, an enclosing one before those inside it."""


@dataclass(frozen=True)
class Weight:
    """``rounding`` makes the integers that ``dequantising`` gives back to ``readers``."""

    rounding: ir.Node
    dequantising: ir.Node
    readers: tuple[ir.Node, ...]

    @property
    def name(self) -> str:
        """That of the value which products read."""
        return str(self.dequantising.outputs[0].name)

    @property
    def bits(self) -> int:
        dtype = self.rounding.outputs[0].dtype
        assert dtype is not None
        return dtype.bitwidth


@dataclass(frozen=True)
class Unit:
    """``inputs`` are the names of what the region reads from outside, ``outputs`` of what is read outside."""

    name: str
    weights: tuple[Weight, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def units(program: Program, extent: Extent, most_bits: int, known: Collection[str]) -> list[Unit]:
    """Every weight of at most ``most_bits`` in one unit; units in the order of the graph.

    ``known`` names values of the graph whose exact numbers can be had. Outputs of units are among them: what reads a
    result alone is taken in until they are. Weights for which that cannot be stay out.
    """
    graph = program.variants["full"].graph
    rates = analyse(graph, program.rates)
    few = [one for one in weights(graph, rates) if one.bits <= most_bits]
    blocks = discover(graph).of_kind(*KINDS[extent]) if few and KINDS[extent] else []
    regions = [(block.name, _with_sources(block.nodes, rates)) for block in blocks]
    members: dict[str, list[Weight]] = {}
    found: dict[str, Set[ir.Node]] = {}
    for weight in few:
        first = weight.readers[0]
        single = str(first.outputs[0].name), {first}
        name, nodes = next((one for one in regions if first in one[1]), single)
        found[name] = nodes
        members.setdefault(name, []).append(weight)
    place = {node: index for index, node in enumerate(graph)}
    made: dict[Unit, int] = {}
    for name, nodes in found.items():
        region = _until_known(nodes, known)
        if region is not None:
            unit = Unit(name, tuple(members[name]), _inputs(region, place, rates), _names(outputs_of(region)))
            made[unit] = max(place[node] for node in region)
    return sorted(made, key=made.__getitem__)


def weights(graph: ir.Graph, rates: Mapping[str, Rate]) -> Iterator[Weight]:
    """What products read of integers, in the order of the graph."""
    for node in graph:
        integers = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        rounding = None if integers is None else integers.producer()
        if integers is None or rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        readers = tuple(_readers(node, rates)) if rates[str(node.outputs[0].name)] is Rate.CONSTANT else ()
        if readers and len(integers.uses()) == 1:
            yield Weight(rounding, node, readers)


def _readers(node: ir.Node, rates: Mapping[str, Rate]) -> Iterator[ir.Node]:
    """What reads a constant while the program runs, at once or through constants."""
    for value in node.outputs:
        for user, _ in value.uses():
            if rates[str(user.outputs[0].name)] is Rate.CONSTANT:
                yield from _readers(user, rates)
            else:
                yield user


def _with_sources(nodes: Iterable[ir.Node], rates: Mapping[str, Rate]) -> Set[ir.Node]:
    """The nodes and what the prompt or the timestep decides for them alone, such as keys of the prompt."""
    inside = set(nodes)
    waiting = list(nodes)
    while waiting:
        for value in waiting.pop().inputs:
            source = None if value is None else value.producer()
            if source is None or source in inside:
                continue
            alone = all(user in inside for one in source.outputs for user, _ in one.uses())
            if alone and rates[str(source.outputs[0].name)] in (Rate.PROMPT, Rate.STEP):
                inside.add(source)
                waiting.append(source)
    return inside


def _until_known(nodes: Set[ir.Node], known: Collection[str]) -> Set[ir.Node] | None:
    inside = set(nodes)
    while strange := [value for value in outputs_of(inside) if value.name not in known]:
        users = {user for value in strange for user, _ in value.uses()} - inside
        if len(users) != 1:
            return None
        inside |= users
    return inside


def _inputs(nodes: Set[ir.Node], place: Mapping[ir.Node, int], rates: Mapping[str, Rate]) -> tuple[str, ...]:
    names = (str(value.name) for value in inputs_of(sorted(nodes, key=place.__getitem__)))
    return tuple(name for name in names if rates[name] is not Rate.CONSTANT)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(sorted(str(value.name) for value in values))


def freeze(weight: Weight, learned: Integers) -> None:
    """The integers and their scale as numbers of the graph."""
    node, integers = weight.dequantising, weight.rounding.outputs[0]
    assert integers.dtype is not None
    maker, dtype = Maker(node, "learned"), integers.dtype.numpy()
    values = maker.constant(learned.values.astype(dtype))
    values.metadata_props.update(integers.metadata_props)
    node.replace_input_with(0, values)
    node.replace_input_with(1, maker.constant(learned.scale))
    if learned.zero is not None:
        node.replace_input_with(2, maker.constant(learned.zero.astype(dtype)))
