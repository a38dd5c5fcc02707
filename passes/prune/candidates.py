"""What may go from a UNet: its blocks, and all that lies below one of its resolutions.

A candidate is read at one value, its *entry*, and at others, its *exits*. What joins a skip connection is entered from
below: with a block of the half that goes up, the join before it goes as well, and the skip with it. That is how smaller
UNets are published (BK-SDM, Kim et al., arXiv 2305.15798).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import onnx_ir as ir

from ...ir.blocks import Anatomy, Block, Kind, discover
from ...ir.errors import UserError
from ...ir.skips import Skip
from ...ir.trunk import maker, trunk
from ..caching.cuts import below, branch
from .merging import segments

CandidateKind = Kind | Literal["depth", "convolutions"]


@dataclass(frozen=True)
class Candidate:
    """Values by name. ``shortcut`` is what a residual block adds its branch to, where that is not its entry;
    ``kernels`` are the widths of convolutions that follow each other from the entry to the exit.
    """

    name: str
    kind: CandidateKind
    entry: str
    exits: tuple[str, ...]
    shortcut: str | None = None
    kernels: tuple[int, ...] = ()


def candidates(graph: ir.Graph) -> list[Candidate]:
    """Every block that is entered at one value; "depth.1", "depth.2", ...: what lies below so many halvings of the
    resolution; and convolutions that follow each other (merging.py). Enclosing ones come before those inside them.
    """
    anatomy = discover(graph)
    merged = (
        Candidate(name, "convolutions", entry, (exit,), None, kernels)
        for name, entry, exit, kernels in segments(graph)
    )
    return [*_depths(graph, anatomy), *_blocks(graph, anatomy), *merged]


def named(found: Sequence[Candidate], name: str, wanted_by: str) -> Candidate:
    """Raises UserError, with the nearest name, if there is no such candidate."""
    names = [one.name for one in found]
    if name in names:
        return found[names.index(name)]
    near = get_close_matches(name, names, 1, cutoff=0.0)
    hint = f"; did you mean {near[0]}?" if near else ": no block of it was found."
    raise UserError(f"pass {wanted_by}: the model has no block {name} that can go{hint}")


def alive(graph: ir.Graph, given: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Results that the outputs are computed from, and inputs, once each value called so is ``given`` as another."""
    values = {str(one.name): one for one in (*graph.inputs, *(one for node in graph for one in node.outputs))}
    seen: set[str] = set()
    waiting = [str(value.name) for value in graph.outputs]
    while waiting:
        name = waiting.pop()
        # Of two that are exchanged one behind the other, the first is the one behind.
        while name in given:
            name = given[name]
        if name in seen or name not in values:
            continue
        seen.add(name)
        if (node := values[name].producer()) is not None:
            seen |= {str(one.name) for one in node.outputs}
            waiting += [str(one.name) for one in node.inputs if one is not None]
    inputs = {str(value.name) for value in graph.inputs}
    return seen - inputs, seen & inputs


def cut_off(graph: ir.Graph, given: Mapping[str, str]) -> list[str]:
    """Inputs that the outputs follow from, and would not any more."""
    return sorted(alive(graph, {})[1] - alive(graph, given)[1])


def _depths(graph: ir.Graph, anatomy: Anatomy) -> Iterator[Candidate]:
    """From where the last skip of a resolution leaves to the first join of that resolution."""
    sizes = trunk(graph).resolution
    first: dict[tuple[int, int], tuple[ir.Node, list[Skip]]] = {}
    for join, skips in anatomy.joins.items():
        first.setdefault(sizes[maker(skips[0].source)], (join, skips))
    by_size = sorted(first.items(), key=lambda one: -one[0][0] * one[0][1])
    # Below the lowest resolution there is nothing.
    for number, (_, (join, skips)) in enumerate(by_size[:-1]):
        if (entry := _below(join, skips)) is not None and entry != skips[0].source.name:
            yield Candidate(f"depth.{number + 1}", "depth", str(skips[0].source.name), (entry,))


def _blocks(graph: ir.Graph, anatomy: Anatomy) -> Iterator[Candidate]:
    carried = {value for node in trunk(graph).nodes for value in node.outputs}
    joins = anatomy.joins
    for block in anatomy.blocks:
        entry = _entry(block, carried, joins)
        exits = tuple(str(value.name) for value in block.outputs)
        if entry is None or not exits or entry in exits:
            continue
        yield Candidate(block.name, block.kind, entry, exits, _shortcut(block, entry, exits))


def _entry(block: Block, carried: Collection[ir.Value], joins: Mapping[ir.Node, list[Skip]]) -> str | None:
    """What comes up into the first join of a block or before it; or else the one value of the trunk that it reads."""
    read = [value for value in block.inputs if value in carried or (value.is_graph_input() and _wide(value))]
    sources = [value.producer() for value in read]
    inside = [node for node in block.nodes if node in joins]
    join = next(iter([*inside, *(node for node in sources if node in joins)]), None)
    if join is not None:
        return _below(join, joins[join])
    return str(read[0].name) if len(read) == 1 else None


def _wide(value: ir.Value) -> bool:
    """Whether an input is a picture."""
    return value.shape is not None and len(value.shape) == 4


def _shortcut(block: Block, entry: str, exits: Sequence[str]) -> str | None:
    added, end = branch(block), block.nodes[-1]
    if added is None or exits != (end.outputs[0].name,):
        return None
    (other,) = [str(value.name) for value in end.inputs if value is not None and value.name != added] or [
        entry
    ]
    return None if other == entry else other


def _below(join: ir.Node, skips: list[Skip]) -> str | None:
    try:
        return below(join, skips)
    except UserError:
        return None
