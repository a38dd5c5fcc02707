"""What keeps an ONNX file from holding together, each in words of its own: libraries stumble over it later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import networkx as nx
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ...ir.errors import UserError


def require_sound(model: ModelProto, path: Path) -> None:
    """Raise UserError for the first fault of the model that was read from ``path``."""
    for look in LOOKS:
        for fault in look(model):
            raise UserError(f"{path} is not sound ONNX: {fault}; export it again.")


def _opset(model: ModelProto) -> Iterator[str]:
    versions = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not versions:
        yield "it does not say its opset"
    elif versions[0] > newest:
        yield f"it says opset {versions[0]}, and the newest known is {newest}"


def _names(model: ModelProto) -> Iterator[str]:
    graph = model.graph
    yield from (f"initializer {one.values.name} is sparse" for one in graph.sparse_initializer)
    for kind, names in (
        ("input", [value.name for value in graph.input]),
        ("initializer", [tensor.name for tensor in graph.initializer]),
        ("output", [value.name for value in graph.output]),
    ):
        for name, count in Counter(names).items():
            if not name:
                yield f"an {kind} has no name"
            elif count > 1:
                yield f"{kind} {name} stands there {count} times"


def _tensors(model: ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        shape = list(tensor.dims)
        if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            yield f"initializer {tensor.name} holds no numbers"
        elif tensor.data_type not in TensorProto.DataType.values():
            yield f"initializer {tensor.name} is of the unknown type {tensor.data_type}"
        elif any(size < 0 for size in shape):
            yield f"initializer {tensor.name} has shape {shape}"
        for entry in tensor.external_data:
            place = PurePosixPath(entry.value.replace("\\", "/"))
            if entry.key == "location" and (place.is_absolute() or ".." in place.parts):
                yield f"it keeps initializer {tensor.name} in {entry.value}, outside of its folder"


def _nodes(model: ModelProto) -> Iterator[str]:
    graph = model.graph
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    yield from _flow(graph.node, given, [value.name for value in graph.output])
    for function in model.functions:
        yield from _flow(function.node, set(function.input), function.output)


def _flow(nodes: Sequence[NodeProto], given: Collection[str], wanted: Iterable[str]) -> Iterator[str]:
    """Whether every value that is read or ``wanted`` is made, once and in time."""
    makers: dict[str, int] = {}
    for place, node in enumerate(nodes):
        bodies = [one for one in node.attribute if one.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)]
        if bodies and node.op_type != "If":
            yield f"{_where(node)} runs a graph of its own, which is not supported"
        elif node.op_type == "If" and not _has_branches(node):
            yield f"{_where(node)} has no two branches of as many results as its own"
        if not any(node.output):
            yield f"{_where(node)} makes nothing"
        for name in filter(None, node.output):
            if name in given:
                yield f"{_where(node)} makes {name}, which is an input or an initializer"
            elif name in makers:
                yield f"{_where(node)} makes {name}, which {_where(nodes[makers[name]])} makes"
            makers[name] = place
    known = set(given)
    for place, node in enumerate(nodes):
        for name in filter(None, node.input):
            if name not in known and name not in makers:
                yield f"{_where(node)} reads {name}, which is no input, no initializer and made by no node"
            elif name not in known and _follows(makers[name], place, nodes, makers):
                yield f"{_where(node)} reads {name}, which follows from its own result"
            elif name not in known:
                yield f"{_where(node)} reads {name} before {_where(nodes[makers[name]])} makes it"
        for branch in (one.g for one in node.attribute if one.type == AttributeProto.GRAPH):
            inside = known.union(tensor.name for tensor in branch.initializer)
            yield from _flow(branch.node, inside, [value.name for value in branch.output])
        known.update(node.output)
    yield from (f"output {name} is made by nothing" for name in wanted if name not in known)


def _has_branches(node: NodeProto) -> bool:
    results = {one.name: len(one.g.output) for one in node.attribute if one.type == AttributeProto.GRAPH}
    return results == dict.fromkeys(("then_branch", "else_branch"), len(node.output))


def _follows(late: int, early: int, nodes: Sequence[NodeProto], makers: Mapping[str, int]) -> bool:
    """Whether the node at one place is computed from that at another."""
    flow: nx.DiGraph[int] = nx.DiGraph()
    flow.add_nodes_from(range(len(nodes)))
    flow.add_edges_from(
        (makers[name], place) for place, node in enumerate(nodes) for name in node.input if name in makers
    )
    return nx.has_path(flow, early, late)


def _where(node: NodeProto) -> str:
    return f"{node.op_type} node {node.name or next(iter(node.output), '')}".rstrip()


LOOKS: Sequence[Callable[[ModelProto], Iterator[str]]] = (_opset, _names, _tensors, _nodes)
"""In the order in which one fault hides another."""


def is_empty(graph: GraphProto) -> bool:
    """Whether there is nothing to run, as in what is left of a file that was cut off early."""
    return not (graph.node and graph.input and graph.output)
