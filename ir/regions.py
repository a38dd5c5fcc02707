"""Single-entry single-exit regions that end in a residual Add, and what each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from .trunk import Root, Trunk

BranchKind = Literal["resnet", "transformer", "attention", "feed_forward"]


@dataclass(frozen=True)
class Region:
    """All that lies on a way from ``entry`` (outside) to ``nodes[-1]``, the Add that closes the region."""

    entry: ir.Node | Root
    nodes: tuple[ir.Node, ...]


def residual_regions(trunk: Trunk) -> list[Region]:
    """Every region of the trunk that adds two things computed from one value, in order of their exits.

    The entry is the immediate dominator of the Add (Lengauer and Tarjan, 1979); the region counts if nothing
    but the Add is read outside of it.
    """
    found: list[Region] = []
    for add in trunk.nodes:
        if add.op_type != "Add" or len(set(trunk.operands(add))) < 2:
            continue
        entry = trunk.dominators[add]
        if entry is None:
            continue
        inside = (trunk.after(entry) & trunk.before(add)) - {entry}
        region = Region(entry, tuple(trunk.sorted(inside)))
        if _has_one_exit(trunk, region):
            found.append(region)
    return found


def _has_one_exit(trunk: Trunk, region: Region) -> bool:
    inside = set(region.nodes)
    return all(set(trunk.graph.successors(node)) <= inside for node in region.nodes[:-1])


def layers(trunk: Trunk, regions: Iterable[Region]) -> list[Region]:
    """Layers of a transformer that has no residual of its own around them: where a feed-forward branch goes on from
    one attention, or from several, one behind the other.
    """
    kinds = {region: branch_kind(region.nodes) for region in regions}
    attentions = {region.nodes[-1]: region for region, kind in kinds.items() if kind == "attention"}
    found: list[Region] = []
    for branch in [region for region, kind in kinds.items() if kind == "feed_forward"]:
        layer = branch
        while (before := attentions.get(layer.entry)) is not None:  # type: ignore[call-overload]
            layer = Region(before.entry, (*before.nodes, *layer.nodes))
        if layer is not branch and _has_one_exit(trunk, layer):
            found.append(layer)
    return found


def branch_kind(nodes: tuple[ir.Node, ...]) -> BranchKind | None:
    """What a region, or a module, computes, told by its operators; None if it is no known block.

    A resnet is two normalised convolutions. Attention has one residual; a transformer also holds a
    feed-forward part, which is a LayerNormalization and products of matrices without attention. Attention taken
    apart (ir/attention.py) is told by its softmax.
    """
    count = Counter(node.op_type for node in nodes)
    products = count["MatMul"] + count["Gemm"]
    if attentions := count["Attention"] + count["Softmax"]:
        return "transformer" if count["LayerNormalization"] > attentions else "attention"
    if count["GroupNormalization"] >= 2 and count["Conv"] >= 2:
        return "resnet"
    if count["LayerNormalization"] == 1 and products >= 2:
        return "feed_forward"
    return None
