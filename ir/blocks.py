"""Blocks and skip connections of a UNet, layers of a diffusion transformer: what pruning and caching act on.

Where the exporter left module paths, they name the blocks. Where it did not, the U is found in the graph
itself: the residual branches by dominators, the stages by where the skip connections leave and come back. A
transformer without a U has neither stages nor skips, and its layers are branches one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import onnx_ir as ir

from .borders import inputs_of, outputs_of
from .naming import LAYER, MODULES, PART, enclosing
from .rates import Rate, analyse
from .regions import BranchKind, Region, branch_kind, layers, residual_regions
from .skips import Skip, skips_by_modules, skips_by_shape
from .trunk import Resolution, Root, Trunk, maker, trunk

StageKind = Literal["down_stage", "mid", "up_stage"]
Kind = BranchKind | StageKind


@dataclass(frozen=True)
class Block:
    """Nodes of the trunk that stand or fall together, in graph order.

    ``inputs``      activations read from outside, in order of first use; weights are not among them
    ``outputs``     values read outside
    ``resolution``  height and width of what it reads
    """

    name: str
    kind: Kind
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    resolution: Resolution


@dataclass(frozen=True)
class Anatomy:
    """Blocks, enclosing ones before those inside them, and skips in the order of their joins."""

    blocks: tuple[Block, ...]
    skips: tuple[Skip, ...]

    @property
    def joins(self) -> dict[ir.Node, list[Skip]]:
        """The joins with their skips, innermost first."""
        found: dict[ir.Node, list[Skip]] = {}
        for skip in self.skips:
            found.setdefault(skip.join, []).append(skip)
        return found

    def of_kind(self, *kinds: Kind) -> list[Block]:
        return [block for block in self.blocks if block.kind in kinds]


def discover(graph: ir.Graph) -> Anatomy:
    """Blocks and skips of a canonical graph, by module paths if it has them, else by its shape.

    Raises UserError if no input has the height and width of an output.
    """
    patterns = [PART, *(pattern for pattern, _ in MODULES)]
    named = any(enclosing(node, pattern) for node in graph for pattern in patterns)
    return discover_by_modules(graph) if named else discover_by_shape(graph)


def discover_by_modules(graph: ir.Graph) -> Anatomy:
    """Blocks as the source model's modules have them, called by their paths.

    Stages that have no module of their own are cut out by the skips.
    """
    line = trunk(graph)
    make = _block_maker(graph, line)
    found: list[Block] = []
    for pattern, kind in MODULES:
        members: dict[str, list[ir.Node]] = {}
        for node in line.nodes:
            if path := enclosing(node, pattern):
                members.setdefault(path, []).append(node)
        for path, nodes in members.items():
            if told := kind or branch_kind(tuple(nodes)):
                found.append(make(path, told, nodes))
    regions = residual_regions(line)
    for region in regions:
        kind = branch_kind(region.nodes)
        if kind in ("attention", "feed_forward") and (path := _common_part(region)):
            found.append(make(path, kind, region.nodes))
    skips = skips_by_modules(line)
    for layer in _bare_layers(line, regions, found):
        if path := enclosing(layer.nodes[-1], LAYER):
            found.append(make(path, "transformer", layer.nodes))
    kinds = {block.kind for block in found}
    found += [
        make(name, kind, nodes) for name, kind, nodes in _stages(line, skips, found) if kind not in kinds
    ]
    return Anatomy(_outermost_first(line, found), skips)


def discover_by_shape(graph: ir.Graph) -> Anatomy:
    """Blocks as single-entry single-exit regions, numbered by kind in the order of the graph."""
    line = trunk(graph)
    make = _block_maker(graph, line)
    skips = skips_by_shape(line)
    joins = {skip.join for skip in skips}
    found: list[Block] = []
    numbers: dict[str, int] = {}

    def add(kind: BranchKind, nodes: tuple[ir.Node, ...]) -> None:
        number = numbers[kind] = numbers.get(kind, -1) + 1
        found.append(make(f"{kind}.{number}", kind, nodes))

    regions = [region for region in residual_regions(line) if not joins & set(region.nodes)]
    for region in regions:
        if kind := branch_kind(region.nodes):
            add(kind, region.nodes)
    for layer in _bare_layers(line, regions, found):
        add("transformer", layer.nodes)
    found += [make(name, kind, nodes) for name, kind, nodes in _stages(line, skips, found)]
    return Anatomy(_outermost_first(line, found), skips)


def _bare_layers(line: Trunk, regions: Sequence[Region], found: Iterable[Block]) -> Iterator[Region]:
    """The layers that no transformer encloses: those of a diffusion transformer, all of one resolution."""
    if len({line.resolution[region.nodes[-1]] for region in regions}) > 1:
        return
    transformers = [set(block.nodes) for block in found if block.kind == "transformer"]
    for layer in layers(line, regions):
        if not any(whole.issuperset(layer.nodes) for whole in transformers):
            yield layer


def _common_part(region: Region) -> str | None:
    """Path of the one part of a transformer block that a region holds besides its norm and its Add."""
    paths = {path for node in region.nodes if (path := enclosing(node, PART))}
    return paths.pop() if len(paths) == 1 else None


def _block_maker(graph: ir.Graph, line: Trunk) -> Callable[[str, Kind, Iterable[ir.Node]], Block]:
    rates = analyse(graph, {})

    def make(name: str, kind: Kind, members: Iterable[ir.Node]) -> Block:
        nodes = tuple(members)
        inputs = (value for value in inputs_of(nodes) if rates[str(value.name)] is not Rate.CONSTANT)
        entry = next(iter(line.graph.predecessors(nodes[0])))
        return Block(name, kind, nodes, tuple(inputs), tuple(outputs_of(nodes)), line.resolution[entry])

    return make


def _outermost_first(line: Trunk, blocks: Iterable[Block]) -> tuple[Block, ...]:
    stages = get_args(StageKind)
    return tuple(
        sorted(
            blocks,
            key=lambda block: (line.order[block.nodes[0]], -len(block.nodes), block.kind not in stages),
        )
    )


def _stages(
    line: Trunk, skips: Sequence[Skip], branches: Iterable[Block]
) -> Iterator[tuple[str, StageKind, list[ir.Node]]]:
    """The stages, cut where the first skip of each resolution leaves or comes back.

    A stage that goes down ends with its downsampling, one that goes up with its upsampling. What comes
    before the first skip and after the last branch is the head and the tail of the network.
    """
    if not skips:
        return
    joins = [skip.join for skip in skips]
    sources = line.sorted({maker(skip.source) for skip in skips})
    innermost, outermost = sources[-1], joins[-1]
    end = max([outermost, *(block.nodes[-1] for block in branches)], key=line.order.__getitem__)
    leaving = _first_of_each_resolution(line, sources)
    returning = _first_of_each_resolution(line, joins)
    down = [line.between(start, stop) - {start} for start, stop in pairwise([*leaving, innermost])]
    up = [line.between(start, stop) - {stop} for start, stop in pairwise(returning)]
    spans: list[tuple[str, StageKind, Set[ir.Node | Root]]] = [
        *((f"down.{number}", "down_stage", nodes) for number, nodes in enumerate(down)),
        ("mid", "mid", line.between(innermost, joins[0]) - {innermost, joins[0]}),
        *((f"up.{number}", "up_stage", nodes) for number, nodes in enumerate(up)),
        (f"up.{len(up)}", "up_stage", line.between(returning[-1], end)),
    ]
    for name, kind, nodes in spans:
        if nodes:
            yield name, kind, line.sorted(nodes)


def _first_of_each_resolution(line: Trunk, nodes: Iterable[ir.Node]) -> list[ir.Node]:
    first: dict[Resolution, ir.Node] = {}
    for node in nodes:
        first.setdefault(line.resolution[node], node)
    return list(first.values())
