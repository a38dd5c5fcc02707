"""Self-attention scores below a threshold are zero, and what remains is written compressed (see codec.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from ...ir import attention
from ...ir.annotations import SCORES, STORED_BITS
from ...ir.blocks import discover
from ...ir.errors import UserError
from ...ir.making import Maker, reroute
from ...ir.program import Program
from ...ir.rates import Rate, analyse
from ..base import Context, Pass, PassConfig
from ..measuring import output_error, watch
from .codec import Layout, encoded_bits, prune, quantise


class PruneScoresConfig(PassConfig):
    threshold: FiniteFloat = Field(
        default=0.5, ge=0, description="Largest score that goes [mean scores: 1 over the number of keys]."
    )
    value_bits: int = Field(default=12, ge=2, le=16, description="Width of a score in memory [bits].")


class PruneScores(Pass[PruneScoresConfig]):
    """Program -> the same with sparse self-attention scores, and what an element of them takes in memory.

    The memory is that of the maps of the calibration's calls, counted by the bit. An Attention node with a mask,
    or with fewer heads of keys than of queries, stays as it is.
    """

    name = "prune-scores"
    Config = PruneScoresConfig
    needs = "bit-slice"

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.require("calibration", self.name)
        changed = program.copy()
        graph = changed.variants["full"].graph
        rates = analyse(graph, program.rates)
        mine = [node for node in graph if node.op_type == "Attention" and _is_self(node, rates)]
        maps = [self._prune(node, side) for node, side in _grids(graph, mine) if attention.is_plain(node)]
        if not maps:
            raise UserError("pass prune-scores finds no self-attention of pixels that it has not changed.")
        for results in watch(context, changed, [one.name for one in maps], calls):
            for one in maps:
                one.count(results[one.name])
        for one in maps:
            one.pruned.metadata_props[STORED_BITS] = str(Fraction(one.bits, one.elements))
        elements = sum(one.elements for one in maps)
        stored = Fraction(sum(one.bits for one in maps), elements)
        return changed, {
            "maps": len(maps),
            "left_alone": len(mine) - len(maps),
            "kept_share": sum(one.kept for one in maps) / elements,
            "bits_per_score": float(stored),
            "score_bytes_saved": float(1 - stored / self.config.value_bits),
            "output_error": output_error(context, program, changed, calls),
        }

    def _prune(self, node: ir.Node, side: int) -> _Map:
        """Sparse scores in the place of a node's."""
        largest, keys = 2**self.config.value_bits - 1, attention.sizes(node).keys
        level = math.ceil(self.config.threshold * largest / keys)
        probabilities = attention.expand(node, "self")
        readers = list(probabilities.uses())
        maker = Maker(probabilities.producer(), "sparse")  # type: ignore[arg-type]
        assert probabilities.shape is not None
        # Whatever would be rounded to the level or more stays.
        pruned = maker.add(
            "ThresholdedRelu", (probabilities,), probabilities.shape.numpy(), alpha=(level - 0.5) / largest
        )
        maker.after()
        reroute(readers, pruned)
        pruned.metadata_props[SCORES] = "self"
        return _Map(str(probabilities.name), pruned, level, Layout(side, self.config.value_bits))


@dataclass
class _Map:
    """The scores of one node, and what they were found to take."""

    name: str
    pruned: ir.Value
    level: int
    layout: Layout
    bits: int = 0
    elements: int = 0
    kept: int = 0

    def count(self, probabilities: NDArray[np.float32]) -> None:
        scores = prune(quantise(probabilities, self.layout.value_bits), self.level)
        self.bits += encoded_bits(scores, self.layout)
        self.elements += scores.size
        self.kept += int(np.count_nonzero(scores))


def _is_self(node: ir.Node, rates: Mapping[str, Rate]) -> bool:
    keys = node.inputs[1]
    return keys is not None and rates[str(keys.name)] is Rate.SAMPLE


def _grids(graph: ir.Graph, nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, int]]:
    """Each node with the width of its tokens' grid; those whose tokens are no grid are left out."""
    blocks = discover(graph).of_kind("attention")
    for node in nodes:
        sizes = [block.resolution for block in blocks if node in block.nodes]
        tokens = attention.sizes(node).keys
        if sizes and sizes[0][0] * sizes[0][1] == tokens:
            yield node, sizes[0][1]
