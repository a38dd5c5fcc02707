"""Products that decide what a picture shows rather than how well: cross-attention's and the feed-forward layers'.

MixDQ (Zhao et al., arXiv 2405.17873, section 4.3) scores these by the likeness of whole pictures, since what changes a
picture's content may be a large error of one call's output or a small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...ir.blocks import Block, discover
from ...ir.rates import Rate, analyse
from ..quantise.products import Product

CONTENT_WEIGHTS = (0.25, 1.0, 4.0)
"""What likeness counts for against noise, both scaled to the same sum: tried in turn, as MixDQ tries ways to split its
budget, and the best pictures win."""


def content(graph: ir.Graph, rates: Mapping[str, Rate], products: Sequence[Product]) -> list[bool]:
    """Which of the products are these. Keys and values of the text are computed once a prompt."""
    found = analyse(graph, rates)

    def crosses(block: Block) -> bool:
        keys = [node.inputs[1] for node in block.nodes if node.op_type == "Attention"]
        return any(one is not None and found[str(one.name)] is not Rate.SAMPLE for one in keys)

    anatomy = discover(graph)
    blocks = [
        one for one in anatomy.of_kind("feed_forward", "attention") if one.kind != "attention" or crosses(one)
    ]
    inside = {node for block in blocks for node in block.nodes}
    return [one.node in inside or found[one.name] is Rate.PROMPT for one in products]
