"""Where a model may be cut: values that change little from step to step, by what computes them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ...ir.blocks import Block, Kind, discover
from ...ir.errors import UserError
from ...ir.rates import Rate, analyse
from ...ir.skips import Skip


def below(join: ir.Node, skips: list[Skip]) -> str:
    """What a join takes in besides its skips. Raises UserError if that is not one value."""
    around = {skip.source for skip in skips}
    found = [value for value in join.inputs if value is not None and value not in around]
    if len(found) != 1 or found[0].producer() is None:
        raise UserError(f"{join.name} does not join one value from below with a skip connection.")
    return str(found[0].name)


def deep(graph: ir.Graph, depth: int) -> list[str]:
    """What comes up into the join that is the ``depth``-th from outside (DeepCache; arXiv 2312.00858).

    Raises UserError if there are fewer joins.
    """
    found = discover(graph).joins
    if len(found) < depth:
        raise UserError(f"depth {depth}: the model has {len(found)} skip connections; give fewer.")
    join = list(found)[-depth]
    return [below(join, found[join])]


def encoder(graph: ir.Graph) -> list[str]:
    """All that the half of a UNet that goes up takes in: skips, and what the middle gives (arXiv 2312.09608).

    Raises UserError if there are no skips.
    """
    found = discover(graph).joins
    if not found:
        raise UserError("the model has no skip connections, and so no encoder whose features could be kept.")
    first = next(iter(found))
    sources = (str(skip.source.name) for skips in found.values() for skip in skips)
    return list(dict.fromkeys([below(first, found[first]), *sources]))


def tail(graph: ir.Graph) -> list[str]:
    """What the last block gives: all but the output's own layers. Raises UserError if there is no block."""
    line = {node: place for place, node in enumerate(graph)}
    ends = [block.nodes[-1] for block in discover(graph).blocks]
    if not ends:
        raise UserError("the model has no blocks whose output could be kept.")
    return [str(max(ends, key=lambda node: line[node]).outputs[0].name)]


def branch(block: Block) -> str | None:
    """What a residual block adds to its input; None for a block that does not end so."""
    add = block.nodes[-1]
    if add.op_type != "Add":
        return None
    inside = set(block.nodes)
    sizes = {
        str(value.name): len(_behind(value, inside))
        for value in add.inputs
        if value is not None and value.producer() in inside
    }
    # The other operand is the input itself, or a projection of it.
    return max(sizes, key=lambda name: sizes[name], default=None)


def branches(graph: ir.Graph, *kinds: Kind) -> dict[str, str]:
    """What residual blocks of these kinds add to their inputs, by the blocks' names, in the order of the graph."""
    found = ((block.name, branch(block)) for block in discover(graph).of_kind(*kinds))
    return {name: value for name, value in found if value is not None}


def cross_attention(graph: ir.Graph, rates: Mapping[str, Rate]) -> list[str]:
    """What attention to the prompt adds. Raises UserError if there is none."""
    known = analyse(graph, rates)
    found = [
        value
        for block in discover(graph).of_kind("attention")
        if any(known[str(one.name)] is Rate.PROMPT for one in block.inputs)
        and (value := branch(block)) is not None
    ]
    if not found:
        raise UserError("the model attends to no prompt, so that there is no cross-attention to be kept.")
    return found


def _behind(value: ir.Value, inside: set[ir.Node]) -> set[ir.Node]:
    """Nodes of ``inside`` that a value is computed from."""
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node in inside and node not in seen:
            seen.add(node)
            waiting += [one for one in node.inputs if one is not None]
    return seen
