"""Attention nodes: their sizes, and the products and the softmax that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from .annotations import SCORES
from .making import Maker
from .shapes import shape_of


@dataclass(frozen=True)
class Sizes:
    """Queries are [batch, heads, queries, wide] or [batch, queries, heads * wide], keys and values alike, values of
    ``deep`` features; ``shared`` heads of keys and values serve all ``heads`` of queries.
    """

    batch: int
    heads: int
    shared: int
    queries: int
    keys: int
    wide: int
    deep: int


def sizes(node: ir.Node) -> Sizes:
    """Of an Attention node of static shapes."""
    query, key, value = (shape_of(operand) for operand in node.inputs[:3])
    if len(query) == 4:
        return Sizes(query[0], query[1], key[1], query[2], key[2], query[3], value[3])
    heads, shared = (node.attributes.get_int(name, 1) for name in ("q_num_heads", "kv_num_heads"))
    return Sizes(query[0], heads, shared, query[1], key[1], query[2] // heads, value[2] // shared)


def is_plain(node: ir.Node) -> bool:
    """Whether a node is softmax(scale Q K^T) V and nothing more, with as many heads of keys as of queries."""
    size = sizes(node)
    masked = any(value is not None for value in node.inputs[3:]) or _number(node, "is_causal")
    watched = any(value.name and value.uses() for value in node.outputs[1:])
    return size.heads == size.shared and not (masked or watched or _number(node, "softcap"))


def expand(node: ir.Node, kind: Literal["self", "cross"]) -> ir.Value:
    """Put Q K^T, softmax and the product with V in the place of a plain node; returns the probabilities.

    What holds scores says of which ``kind`` of attention.
    """
    size, maker = sizes(node), Maker(node, "attention")
    joined = len(shape_of(node.inputs[0])) == 3

    def parted(operand: ir.Value | None, tokens: int, features: int, keys: bool = False) -> ir.Value:
        """[batch, heads, tokens, features], or as keys [batch, heads, features, tokens]."""
        assert operand is not None
        if joined:
            shape = [size.batch, tokens, size.heads, features]
            operand = maker.add("Reshape", (operand, maker.constant(np.array(shape))), shape)
        order = [0, 2, 1, 3] if joined else [0, 1, 2, 3]
        if keys:
            order[2:] = order[:1:-1]
        if order == [0, 1, 2, 3]:
            return operand
        shape = [size.batch, size.heads, *((features, tokens) if keys else (tokens, features))]
        return maker.add("Transpose", (operand,), shape, perm=order)

    query, key, value = node.inputs[:3]
    first = parted(query, size.queries, size.wide)
    second = parted(key, size.keys, size.wide, keys=True)
    square = (size.batch, size.heads, size.queries, size.keys)
    scale = np.array(_number(node, "scale") or 1 / math.sqrt(size.wide), np.float32)
    scores = maker.add("MatMul", (first, second), square)
    scaled = maker.add("Mul", (scores, maker.constant(scale)), square)
    probabilities = maker.add("Softmax", (scaled,), square, axis=-1)
    for one in (scores, scaled, probabilities):
        one.metadata_props[SCORES] = kind
    shape = [size.batch, size.heads, size.queries, size.deep]
    result = maker.add("MatMul", (probabilities, parted(value, size.keys, size.deep)), shape)
    if joined:
        shape = [size.batch, size.queries, size.heads, size.deep]
        result = maker.add("Transpose", (result,), shape, perm=[0, 2, 1, 3])
        shape = [size.batch, size.queries, size.heads * size.deep]
        result = maker.add("Reshape", (result, maker.constant(np.array(shape))), shape)
    maker.replace(result)
    return probabilities


def _number(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return float(attribute.value) if attribute is not None else 0.0
