"""Every resnet projects the same embedding vector; together those projections are one product.

A UNet with N resnets holds N small linear layers on one vector (Dhariwal and Nichol, arXiv 2105.05233,
section 3), each a matrix-vector product, reshaped to [1, C, 1, 1] and perhaps split into a scale and a shift.
Stacking their weights makes them one product and one Split, whose parts are views.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from ..modules import SCOPES
from .propagate import add_literal, dims
from .splitting import insert_split

FEWEST = 2
"""One projection alone is already one product."""


def stack_projections(model: ir.Model) -> int:
    """Replace Gemms that read one vector by one Gemm with stacked weights. Returns how many were replaced.

    The weights stay the source's, by name: Concat nodes stack them, at constant rate.
    """
    families: dict[ir.Value, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        if node.op_type == "Gemm" and _stackable(node) and node.inputs[0] is not None:
            families[node.inputs[0]].append(node)
    replaced = 0
    for vector, nodes in families.items():
        if len(nodes) >= FEWEST:
            _stack(model.graph, vector, nodes)
            replaced += len(nodes)
    return replaced


def _stackable(node: ir.Node) -> bool:
    plain = node.attributes.get_int("transB", 0) == 1 and node.attributes.get_int("transA", 0) == 0
    unscaled = node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
    weights = len(node.inputs) == 3 and all(v is not None and v.is_initializer() for v in node.inputs[1:])
    bias_is_vector = weights and dims(node.inputs[2]) == dims(node.outputs[0])[1:]
    one_reader = len(node.outputs[0].uses()) == 1 and not node.outputs[0].is_graph_output()
    if not (plain and unscaled and bias_is_vector and one_reader and dims(node.inputs[0])[0] == 1):
        return False
    reshape = node.outputs[0].consumers()[0]
    columns = dims(node.outputs[0])[1]
    return reshape.op_type == "Reshape" and dims(reshape.outputs[0]) == (1, columns, 1, 1)


def _stack(graph: ir.Graph, vector: ir.Value, nodes: list[ir.Node]) -> None:
    stem = f"{vector.name}_projections"
    weights = [node.inputs[1] for node in nodes]
    biases = [node.inputs[2] for node in nodes]
    total = sum(dims(weight)[0] for weight in weights)
    stacked = [
        ir.node("Concat", weights, {"axis": 0}, name=f"{stem}_weight"),
        ir.node("Concat", biases, {"axis": 0}, name=f"{stem}_bias"),
    ]
    product = ir.node("Gemm", [vector, *(one.outputs[0] for one in stacked)], {"transB": 1}, name=stem)
    table = add_literal(graph, np.array([1, total, 1, 1], np.int64), f"{stem}_shape")
    whole = ir.node("Reshape", [product.outputs[0], table], name=f"{stem}_reshape")
    made = [*stacked, product, whole]
    shapes = [(total, dims(vector)[1]), (total,), (1, total), (1, total, 1, 1)]
    producer = vector.producer()
    for node, shape in zip(made, shapes, strict=True):
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = (
            node.name,
            ir.Shape(shape),
            vector.type,
        )
        if producer is not None and SCOPES in producer.metadata_props:
            node.metadata_props[SCOPES] = producer.metadata_props[SCOPES]
    if producer is not None:
        graph.insert_after(producer, made)
    else:
        graph.insert_before(graph[0], made)
    readers = [node.outputs[0].consumers()[0] for node in nodes]
    sizes, parts = _leaves(readers)
    insert_split(graph, whole.outputs[0], 1, sizes, parts)
    for reader in readers:
        halves = [user for user, _ in reader.outputs[0].uses() if user.op_type == "Split"]
        graph.remove(halves, safe=True)
        graph.remove(reader, safe=True)
    graph.remove(nodes, safe=True)


def _leaves(readers: list[ir.Node]) -> tuple[list[int], list[list[ir.Value]]]:
    """The values that the stacked product splits into: a projection, or its parts where it is split again."""
    sizes: list[int] = []
    parts: list[list[ir.Value]] = []
    for reader in readers:
        value = reader.outputs[0]
        users = value.consumers()
        again = [
            user for user in users if user.op_type == "Split" and user.attributes.get_int("axis", 0) == 1
        ]
        for leaf in again[0].outputs if len(again) == len(users) == 1 else [value]:
            sizes.append(dims(leaf)[1])
            parts.append([leaf])
    return sizes, parts
