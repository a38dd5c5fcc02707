"""Scaled dot-product attention that never stores the matrix of scores.

Keys and values pass by in blocks while running maxima and sums keep the softmax exact: Milakov and
Gimelshein (arXiv 1805.02867) for the recurrence, FlashAttention (Dao et al., arXiv 2205.14135) for the tiling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from .kernel import Kernel, fill, flat, lane_chunks, local, reduce_lanes
from .vector_math import exp

LOWEST = -1.0e30
"""Stands for minus infinity without making (-inf) - (-inf)."""


@dataclass(frozen=True)
class Attention(Kernel):
    """Operands: q, k, v, scratch for the transposed keys, out, [mask].

    Strides are those of (batch, head, token, channel); channels of v and out are contiguous. A task computes
    ``tile_rows`` queries against ``block`` keys at a time, ``width`` of them in registers. ``causal`` hides from
    a query the keys after it. A mask has strides (batch, head, query, key): floats are added to the scores,
    booleans say which keys a query sees.
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
    tile_rows: int
    width: int
    block: int
    lanes: int
    causal: bool = False
    mask_strides: tuple[int, ...] = ()

    @property
    def panels(self) -> int:
        return math.ceil(self.keys / self.block) * (self.block // self.width)

    @property
    def scratch_floats(self) -> int:
        return self.batch * self.heads * self.panels * self.width * self.depth

    def body(self, operands: Sequence[Any]) -> None:
        self._transpose_keys(operands[1], operands[3])
        bands = math.ceil(self.queries / self.tile_rows)
        with T.parallel(0, self.batch * self.heads * bands) as task:
            head = task // bands
            first = T.min(task % bands * self.tile_rows, self.queries - self.tile_rows)
            self._band(operands, head, first)

    def _transpose_keys(self, k: Any, scratch: Any) -> None:
        with T.parallel(0, self.batch * self.heads * self.panels) as task:
            head, panel = task // self.panels, task % self.panels
            base = flat([head // self.heads, head % self.heads], self.k_strides[:2])
            with T.serial(0, self.depth) as channel:
                with T.serial(0, self.width) as lane:
                    # The last panel repeats the last key; its scores are masked below.
                    key = T.min(panel * self.width + lane, self.keys - 1)
                    value = k[base + flat([key, channel], self.k_strides[2:])]
                    T.buffer_store(scratch, value, [(task * self.depth + channel) * self.width + lane])

    def _band(self, operands: Sequence[Any], head: Any, first: Any) -> None:
        rows = range(self.tile_rows)
        sums = [local(self.value_depth) for _ in rows]
        weights = [local(self.block) for _ in rows]
        top = [local(1) for _ in rows]
        total = [local(self.lanes) for _ in rows]
        for row in rows:
            for start, width in lane_chunks(self.value_depth, self.lanes):
                with T.vectorized(0, width) as lane:
                    T.buffer_store(sums[row], T.float32(0), [start + lane])
            fill(top[row], 1, LOWEST)
            fill(total[row], self.lanes, 0.0)
        with T.serial(0, math.ceil(self.keys / self.block)) as block:
            with T.serial(0, self.block // self.width) as part:
                self._scores(operands, head, first, block, part, weights)
            for row in rows:
                self._soften(weights[row], sums[row], top[row], total[row])
            self._weigh(operands[2], head, block, weights, sums)
        self._finish(operands[4], head, first, sums, total)

    def _scores(
        self, operands: Sequence[Any], head: Any, first: Any, block: Any, part: Any, weights: Any
    ) -> None:
        q, keys = operands[0], operands[3]
        vectors = lane_chunks(self.width, self.lanes)
        tile = [[local(width) for _, width in vectors] for _ in range(self.tile_rows)]
        for sums in tile:
            for total, (_, width) in zip(sums, vectors, strict=True):
                fill(total, width, 0.0)
        panel = head * self.panels + block * (self.block // self.width) + part
        base = flat([head // self.heads, head % self.heads, first], self.q_strides[:3])
        with T.serial(0, self.depth) as channel:
            at = (panel * self.depth + channel) * self.width
            for row, sums in enumerate(tile):
                left = q[base + row * self.q_strides[2] + channel * self.q_strides[3]]
                for total, (start, width) in zip(sums, vectors, strict=True):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(total, total[lane] + left * keys[at + start + lane], [lane])
        for row, sums in enumerate(tile):
            for total, (start, width) in zip(sums, vectors, strict=True):
                with T.vectorized(0, width) as lane:
                    within = part * self.width + start + lane
                    key = block * self.block + within
                    score = total[lane] * T.float32(self.scale)
                    T.buffer_store(
                        weights[row], self._masked(score, operands, head, first + row, key), [within]
                    )

    def _masked(self, score: Any, operands: Sequence[Any], head: Any, query: Any, key: Any) -> Any:
        """The score that the softmax sees: hidden keys have the lowest there is."""
        lowest = T.float32(LOWEST)
        if self.mask_strides:
            mask = operands[5]
            seen = T.min(key, self.keys - 1)
            at = flat([head // self.heads, head % self.heads, query, seen], self.mask_strides)
            hides = self.dtypes[5] == "bool"
            score = T.Select(mask[at], score, lowest) if hides else T.max(score + mask[at], lowest)
        if self.causal:
            score = T.Select(key <= query, score, lowest)
        if self.keys % self.block != 0:
            score = T.Select(key < self.keys, score, lowest)
        return score

    def _soften(self, weights: Any, sums: Any, top: Any, total: Any) -> None:
        """Scores become exponentials; what was summed under the old maximum is scaled to the new one."""
        highest, factor = local(self.lanes), local(1)
        with T.vectorized(0, self.lanes) as lane:
            T.buffer_store(highest, weights[lane], [lane])
        with T.serial(1, self.block // self.lanes) as vector:
            with T.vectorized(0, self.lanes) as lane:
                score = weights[vector * self.lanes + lane]
                T.buffer_store(highest, T.max(highest[lane], score), [lane])
        peak = local(1)
        T.buffer_store(peak, T.max(top[0], reduce_lanes(highest, self.lanes, lambda a, b: T.max(a, b))), [0])
        T.buffer_store(factor, exp(top[0] - peak[0]), [0])
        T.buffer_store(top, peak[0], [0])
        with T.vectorized(0, self.lanes) as lane:
            T.buffer_store(total, total[lane] * factor[0], [lane])
        with T.serial(0, self.block // self.lanes) as vector:
            with T.vectorized(0, self.lanes) as lane:
                at = vector * self.lanes + lane
                T.buffer_store(weights, exp(weights[at] - peak[0]), [at])
            with T.vectorized(0, self.lanes) as lane:
                T.buffer_store(total, total[lane] + weights[vector * self.lanes + lane], [lane])
        for start, width in lane_chunks(self.value_depth, self.lanes):
            with T.vectorized(0, width) as lane:
                T.buffer_store(sums, sums[start + lane] * factor[0], [start + lane])

    def _weigh(self, v: Any, head: Any, block: Any, weights: Any, sums: Any) -> None:
        """sums += weights x values, as many channels at a time as registers hold."""
        base = flat([head // self.heads, head % self.heads], self.v_strides[:2])
        count = T.min(self.block, self.keys - block * self.block)
        for channel in range(0, self.value_depth, self.width):
            vectors = lane_chunks(min(self.width, self.value_depth - channel), self.lanes)
            tile = [[local(width) for _, width in vectors] for _ in range(self.tile_rows)]
            for row, held in enumerate(tile):
                for total, (start, width) in zip(held, vectors, strict=True):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(total, sums[row][channel + start + lane], [lane])
            with T.serial(0, count) as key:
                at = base + (block * self.block + key) * self.v_strides[2] + channel
                for row, held in enumerate(tile):
                    for total, (start, width) in zip(held, vectors, strict=True):
                        with T.vectorized(0, width) as lane:
                            added = total[lane] + weights[row][key] * v[at + start + lane]
                            T.buffer_store(total, added, [lane])
            for row, held in enumerate(tile):
                for total, (start, width) in zip(held, vectors, strict=True):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(sums[row], total[lane], [channel + start + lane])

    def _finish(self, out: Any, head: Any, first: Any, sums: Any, total: Any) -> None:
        base = flat([head // self.heads, head % self.heads, first], self.out_strides[:3])
        for row in range(self.tile_rows):
            share = local(1)
            whole = reduce_lanes(total[row], self.lanes, lambda a, b: a + b)
            T.buffer_store(share, T.float32(1.0) / whole, [0])
            for start, width in lane_chunks(self.value_depth, self.lanes):
                with T.vectorized(0, width) as lane:
                    at = base + row * self.out_strides[2] + start + lane
                    T.buffer_store(out, sums[row][start + lane] * share[0], [at])
