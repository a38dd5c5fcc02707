"""Scaled dot-product attention that never stores the matrix of scores.

Keys and values pass by in blocks while running maxima and sums keep the softmax exact: Milakov and
Gimelshein (arXiv 1805.02867) for the recurrence, FlashAttention (Dao et al., arXiv 2205.14135) for the tiling.

Vectors run along the queries: a key's or a value's number is multiplied with as many queries as a vector holds. So
heads of any width fill the vectors, and the softmax takes its maxima and sums without crossing them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from .kernel import Kernel, fill, flat, lane_chunks, local
from .vector_math import LOG2_E, exp2

LOWEST = -1.0e30
"""Stands for minus infinity without making (-inf) - (-inf)."""


@dataclass(frozen=True)
class Attention(Kernel):
    """Operands: q, k, v, scratch, out, [mask].

    Strides are those of (batch, head, token, channel). A task takes runs of ``tile`` queries of one head, all of
    them in ``blocks`` tasks, against ``block`` keys at a time, ``rows`` of them in registers, and sums ``channels``
    of the values at a time. ``causal`` hides from a query the keys after it. A mask has strides (batch, head, query,
    key): floats are added to the scores, booleans say which keys a query sees.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int
    scale: float
    q_strides: tuple[int, ...]
    k_strides: tuple[int, ...]
    v_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    tile: int
    rows: int
    channels: int
    block: int
    blocks: int
    lanes: int
    causal: bool = False
    mask_strides: tuple[int, ...] = ()

    @property
    def bands(self) -> int:
        """Runs of queries; the last overlaps its neighbour."""
        return math.ceil(self.queries / self.tile)

    @property
    def scratch_floats(self) -> int:
        """Of each task a run of queries, channel by channel, and their scores against a block of keys."""
        return self.batch * self.heads * self.blocks * (self.depth + self.block) * self.tile

    @property
    def _vectors(self) -> list[tuple[int, int]]:
        return lane_chunks(self.tile, self.lanes)

    def body(self, operands: Sequence[Any]) -> None:
        per_block = math.ceil(self.bands / self.blocks)
        with T.parallel(0, self.batch * self.heads * self.blocks) as task:
            head, first = task // self.blocks, task % self.blocks * per_block
            with T.serial(0, T.min(per_block, self.bands - first)) as band:
                self._band(operands, task, head, T.min((first + band) * self.tile, self.queries - self.tile))

    def _band(self, operands: Sequence[Any], task: Any, head: Any, first: Any) -> None:
        queries = task * ((self.depth + self.block) * self.tile)
        scores = queries + self.depth * self.tile
        self._turn_queries(operands[0], operands[3], head, first, queries)
        sums = [[local(width) for _, width in self._vectors] for _ in range(self.value_depth)]
        top, total = ([local(width) for _, width in self._vectors] for _ in range(2))
        for held, value in ((top, LOWEST), (total, 0.0), *((one, 0.0) for one in sums)):
            for vector, (_, width) in zip(held, self._vectors, strict=True):
                fill(vector, width, value)
        with T.serial(0, math.ceil(self.keys / self.block)) as block:
            with T.serial(0, self.block // self.rows) as group:
                self._scores(operands, head, first, block, group, queries, scores)
            for index, (start, width) in enumerate(self._vectors):
                mine = [channel[index] for channel in sums]
                self._soften(operands[3], scores + start, width, mine, top[index], total[index])
            self._weigh(operands[2], operands[3], head, block, scores, sums)
        self._finish(operands[4], head, first, sums, total)

    def _turn_queries(self, q: Any, scratch: Any, head: Any, first: Any, at: Any) -> None:
        """Channel by channel, scaled so that the softmax is one of powers of two."""
        base = flat([head // self.heads, head % self.heads, first], self.q_strides[:3])
        with T.serial(0, self.depth) as channel:
            with T.serial(0, self.tile) as query:
                value = q[base + flat([query, channel], self.q_strides[2:])] * T.float32(self.scale * LOG2_E)
                T.buffer_store(scratch, value, [at + channel * self.tile + query])

    def _scores(
        self,
        operands: Sequence[Any],
        head: Any,
        first: Any,
        block: Any,
        group: Any,
        queries: Any,
        scores: Any,
    ) -> None:
        """The queries against ``rows`` keys."""
        k, scratch = operands[1], operands[3]
        base = flat([head // self.heads, head % self.heads], self.k_strides[:2])
        keys = [block * self.block + group * self.rows + row for row in range(self.rows)]
        whole = self.keys % self.block == 0
        # The last block repeats the last key; its scores are hidden below.
        starts = [base + (key if whole else T.min(key, self.keys - 1)) * self.k_strides[2] for key in keys]
        sums = [[local(width) for _, width in self._vectors] for _ in keys]
        for row in sums:
            for vector, (_, width) in zip(row, self._vectors, strict=True):
                fill(vector, width, 0.0)
        with T.serial(0, self.depth) as channel:
            for start, row in zip(starts, sums, strict=True):
                left = k[start + channel * self.k_strides[3]]
                for vector, (offset, width) in zip(row, self._vectors, strict=True):
                    with T.vectorized(0, width) as lane:
                        right = scratch[queries + channel * self.tile + offset + lane]
                        T.buffer_store(vector, vector[lane] + left * right, [lane])
        for place, (key, row) in enumerate(zip(keys, sums, strict=True)):
            for vector, (offset, width) in zip(row, self._vectors, strict=True):
                with T.vectorized(0, width) as lane:
                    score = self._masked(vector[lane], operands, head, first + offset + lane, key)
                    at = scores + (group * self.rows + place) * self.tile + offset
                    T.buffer_store(scratch, score, [at + lane])

    def _masked(self, score: Any, operands: Sequence[Any], head: Any, query: Any, key: Any) -> Any:
        """The score that the softmax sees: hidden keys have the lowest there is."""
        lowest = T.float32(LOWEST)
        if self.mask_strides:
            mask = operands[5]
            seen = T.min(key, self.keys - 1)
            at = flat([head // self.heads, head % self.heads, query, seen], self.mask_strides)
            hides = self.dtypes[5] == "bool"
            score = (
                T.Select(mask[at], score, lowest)
                if hides
                else T.max(score + mask[at] * T.float32(LOG2_E), lowest)
            )
        if self.causal:
            score = T.Select(key <= query, score, lowest)
        if self.keys % self.block != 0:
            score = T.Select(key < self.keys, score, lowest)
        return score

    def _soften(self, scratch: Any, scores: Any, width: int, sums: list[Any], top: Any, total: Any) -> None:
        """Scores become powers; what was summed under the old maximum is scaled to the new one."""
        peak, factor = local(width), local(width)
        with T.vectorized(0, width) as lane:
            T.buffer_store(peak, top[lane], [lane])
        with T.serial(0, self.block) as key:
            with T.vectorized(0, width) as lane:
                T.buffer_store(peak, T.max(peak[lane], scratch[scores + key * self.tile + lane]), [lane])
        with T.vectorized(0, width) as lane:
            T.buffer_store(factor, exp2(top[lane] - peak[lane]), [lane])
        with T.vectorized(0, width) as lane:
            T.buffer_store(top, peak[lane], [lane])
        for held in (total, *sums):
            with T.vectorized(0, width) as lane:
                T.buffer_store(held, held[lane] * factor[lane], [lane])
        with T.serial(0, self.block) as key:
            weight = local(width)
            with T.vectorized(0, width) as lane:
                T.buffer_store(weight, exp2(scratch[scores + key * self.tile + lane] - peak[lane]), [lane])
            with T.vectorized(0, width) as lane:
                T.buffer_store(scratch, weight[lane], [scores + key * self.tile + lane])
            with T.vectorized(0, width) as lane:
                T.buffer_store(total, total[lane] + weight[lane], [lane])

    def _weigh(self, v: Any, scratch: Any, head: Any, block: Any, scores: Any, sums: list[list[Any]]) -> None:
        """sums += weights x values, as many channels at a time as registers hold."""
        base = flat([head // self.heads, head % self.heads], self.v_strides[:2])
        count = T.min(self.block, self.keys - block * self.block)
        for first in range(0, self.value_depth, self.channels):
            channels = range(first, min(first + self.channels, self.value_depth))
            held = {channel: [local(width) for _, width in self._vectors] for channel in channels}
            for channel in channels:
                for vector, source, (_, width) in zip(
                    held[channel], sums[channel], self._vectors, strict=True
                ):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(vector, source[lane], [lane])
            with T.serial(0, count) as key:
                at = base + (block * self.block + key) * self.v_strides[2]
                for channel in channels:
                    value = v[at + channel * self.v_strides[3]]
                    for vector, (offset, width) in zip(held[channel], self._vectors, strict=True):
                        with T.vectorized(0, width) as lane:
                            weight = scratch[scores + key * self.tile + offset + lane]
                            T.buffer_store(vector, vector[lane] + value * weight, [lane])
            for channel in channels:
                for vector, target, (_, width) in zip(
                    held[channel], sums[channel], self._vectors, strict=True
                ):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(target, vector[lane], [lane])

    def _finish(self, out: Any, head: Any, first: Any, sums: list[list[Any]], total: list[Any]) -> None:
        for index, (offset, width) in enumerate(self._vectors):
            share = local(width)
            with T.vectorized(0, width) as lane:
                T.buffer_store(share, T.float32(1.0) / total[index][lane], [lane])
            for channel, vectors in enumerate(sums):
                with T.vectorized(0, width) as lane:
                    at = [head // self.heads, head % self.heads, first + offset + lane, channel]
                    T.buffer_store(out, vectors[index][lane] * share[lane], [flat(at, self.out_strides)])
