"""Skip connections: where the half of a UNet that goes up takes in what the other half left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from .naming import DOWN, MIDDLE, enclosing
from .trunk import Trunk, maker


@dataclass(frozen=True)
class Skip:
    """``join``, a Concat or an Add, takes in ``source`` from before the deepest part of the U."""

    join: ir.Node
    source: ir.Value


def skips_by_modules(line: Trunk) -> tuple[Skip, ...]:
    """Joins outside of the modules that go down and of the middle that take in a value from the former."""
    return tuple(
        skip
        for skip in _meetings(line)
        if enclosing(maker(skip.source), DOWN)
        and not (enclosing(skip.join, DOWN) or enclosing(skip.join, MIDDLE))
    )


def skips_by_shape(line: Trunk) -> tuple[Skip, ...]:
    """Joins that reach around the deepest resolution.

    At the deepest resolution itself an Add closes a residual branch, and only a Concat is a skip.
    """
    deepest = line.deepest
    behind: set[ir.Node] = set()
    for node in line.nodes:
        if line.resolution[node] == deepest or any(maker(value) in behind for value in line.operands(node)):
            behind.add(node)
    return tuple(
        skip
        for skip in _meetings(line)
        if (
            skip.join.op_type == "Concat"
            if line.resolution[skip.join] == deepest
            else skip.join in behind and maker(skip.source) not in behind
        )
    )


def _meetings(line: Trunk) -> Iterator[Skip]:
    """Every join of a value with an earlier one of the same resolution that it is computed from, or is."""
    for join in line.nodes:
        if join.op_type not in ("Add", "Concat"):
            continue
        operands = sorted(line.operands(join), key=lambda value: line.order[maker(value)])
        for source in operands[:-1]:
            late, early = maker(operands[-1]), maker(source)
            if line.resolution[early] == line.resolution[late] and early in line.before(late):
                yield Skip(join, source)
