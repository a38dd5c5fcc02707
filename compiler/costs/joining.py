"""Calls of kernels joined with the nodes that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import onnx_ir as ir

from ...ir.groups import groups
from ...ir.program import Program


class Named(Protocol):
    """A call, planned or timed."""

    @property
    def node(self) -> str: ...


CallT = TypeVar("CallT", bound=Named)


def named(program: Program) -> Program:
    """A copy whose nodes are called after what they compute, by which costs are told apart."""
    twin = program.copy()
    for model in twin.variants.values():
        for node in model.graph:
            node.name = node.outputs[0].name
    return twin


def anchors(model: ir.Model) -> dict[str, str]:
    """The anchor of its fusion group, by the name of every node in one."""
    return {str(node.name): str(group.anchor.name) for group in groups(model) for node in group.nodes}


def owned(calls: Iterable[CallT], owners: Mapping[str, str]) -> Iterator[tuple[str, CallT]]:
    """Calls, in order, with the owners of their nodes.

    A copy that no operator asks for is part of the layer that it prepares; at the end, of the layer whose result it
    hands over.
    """
    waiting: list[CallT] = []
    owner = ""
    for call in calls:
        waiting.append(call)
        if call.node in owners:
            owner = owners[call.node]
            yield from ((owner, one) for one in waiting)
            waiting = []
    yield from ((owner, one) for one in waiting)
