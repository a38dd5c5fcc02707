"""Scaled dot-product attention that never stores the matrix of scores.

Keys and values pass by in blocks while running maxima and sums keep the softmax exact: Milakov and
Gimelshein (arXiv 1805.02867) for the recurrence, FlashAttention (Dao et al., arXiv 2205.14135) for the tiling.

Vectors run along the queries: a key's or a value's number is multiplied with as many queries as a vector holds. So
heads of any width fill the vectors, and the softmax takes its maxima and sums without crossing them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..heads import HeadShapes
from .dots import DOTS, add_products, left_factors
from .kernel import Kernel, fill, flat, lane_chunks, local, store, words
from .vector_math import LOG2_E, exp2

LOWEST = -1.0e30
"""Stands for minus infinity without making (-inf) - (-inf)."""


def score_scale(shapes: HeadShapes, operands: Sequence[Any]) -> Any:
    """What a query times a key is multiplied with, so that the softmax is one of powers of two."""
    scale = T.float32(shapes.scale * LOG2_E)
    return scale * operands[-3][0] * operands[-2][0] if shapes.scaled else scale


def value_scale(shapes: HeadShapes, operands: Sequence[Any]) -> Any:
    """What the mean of values is multiplied with."""
    return operands[-1][0] if shapes.scaled else T.float32(1.0)


@dataclass(frozen=True)
class Attention(HeadShapes, Kernel):
    """Operands: q, k, v, scratch, out, [mask], [scales of q, k and v].

    A task takes runs of ``tile`` queries of one head, all of them in ``blocks`` tasks, against ``block`` keys at a
    time, ``rows`` of them in registers, and sums ``channels`` of the values at a time. With ``by_lane``, what queries
    and weights are multiplied with is loaded in vectors. ``causal`` hides from a query the keys after it. A mask has
    strides (batch, head, query, key): floats are added to the scores, booleans say which keys a query sees.
    """

    tile: int
    rows: int
    channels: int
    block: int
    blocks: int
    lanes: int
    by_lane: bool = False
    causal: bool = False
    mask_strides: tuple[int, ...] = ()

    @property
    def dot(self) -> str | None:
        """The instruction, where factors are words of several numbers."""
        return None

    @property
    def bands(self) -> int:
        """Runs of queries; the last overlaps its neighbour."""
        return math.ceil(self.queries / self.tile)

    @property
    def scratch_floats(self) -> int:
        """Of each task a run of queries, their scores against a block of keys, and the sums of the values."""
        return self.batch * self.heads * self.blocks * self._task_floats

    @property
    def _task_floats(self) -> int:
        return (self._steps + self.block + self.value_depth) * self.tile

    @property
    def _together(self) -> int:
        return 1 if self.dot is None else DOTS[self.dot].together

    @property
    def _steps(self) -> int:
        """Of a sum over channels."""
        return self.depth // self._together

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
        queries = task * self._task_floats
        scores = queries + self._steps * self.tile
        sums = scores + self.block * self.tile
        scratch = operands[3]
        self._turn_queries(operands, head, first, queries)
        top, total = ([local(width) for _, width in self._vectors] for _ in range(2))
        for index, (start, width) in enumerate(self._vectors):
            fill(top[index], width, LOWEST)
            fill(total[index], width, 0.0)
            with T.serial(0, self.value_depth) as channel:
                with T.vectorized(0, width) as lane:
                    T.buffer_store(scratch, T.float32(0), [sums + channel * self.tile + start + lane])
        with T.serial(0, math.ceil(self.keys / self.block)) as block:
            with T.serial(0, self.block // self.rows) as group:
                self._scores(operands, head, first, block, group, queries, scores)
            for index, (start, width) in enumerate(self._vectors):
                self._soften(scratch, scores + start, sums + start, width, top[index], total[index])
            self._weigh(operands[2], scratch, head, block, scores, sums)
        self._finish(operands, head, first, sums, total)

    def _turn_queries(self, operands: Sequence[Any], head: Any, first: Any, at: Any) -> None:
        """Channel by channel, scaled so that the softmax is one of powers of two."""
        q, scratch, scale = operands[0], operands[3], score_scale(self, operands)
        base = flat([head // self.heads, head % self.heads, first], self.q_strides[:3])
        with T.serial(0, self.depth) as channel:
            with T.serial(0, self.tile) as query:
                value = q[base + flat([query, channel], self.q_strides[2:])] * scale
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
        queried = scratch if self.dot is None else words(scratch)
        sums = [[local(width) for _, width in self._vectors] for _ in keys]
        for row in sums:
            for vector, (_, width) in zip(row, self._vectors, strict=True):
                fill(vector, width, 0.0)
        steps = self.lanes if self.by_lane and self._steps % self.lanes == 0 else 1
        with T.serial(0, self._steps // steps) as part:
            at = [start + part * steps * self.k_strides[3] for start in starts]
            lefts = self._lefts(k, at, self.k_strides[3], steps)
            for step in range(steps):
                channel = part * steps + step
                for left, row in zip(lefts, sums, strict=True):
                    for vector, (offset, width) in zip(row, self._vectors, strict=True):
                        place = queries + channel * self.tile + offset
                        add_products(vector, [left[step]], queried, place, width, self.dot, "float32")
        for place, (key, row) in enumerate(zip(keys, sums, strict=True)):
            for vector, (offset, width) in zip(row, self._vectors, strict=True):
                with T.vectorized(0, width) as lane:
                    score = self._masked(
                        self._score(vector[lane], operands), operands, head, first + offset + lane, key
                    )
                    at = scores + (group * self.rows + place) * self.tile + offset
                    T.buffer_store(scratch, score, [at + lane])

    def _lefts(self, source: Any, starts: Sequence[Any], stride: int, steps: int) -> list[Any]:
        return left_factors(source, starts, stride, steps, self.by_lane, self.dot, "float32", self.lanes)

    def _score(self, product: Any, operands: Sequence[Any]) -> Any:
        """From the product of a key with what ``_turn_queries`` left."""
        return product

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

    def _soften(self, scratch: Any, scores: Any, sums: Any, width: int, top: Any, total: Any) -> None:
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
        with T.vectorized(0, width) as lane:
            T.buffer_store(total, total[lane] * factor[lane], [lane])
        with T.serial(0, self.value_depth) as channel:
            with T.vectorized(0, width) as lane:
                at = sums + channel * self.tile + lane
                T.buffer_store(scratch, scratch[at] * factor[lane], [at])
        self._store_weights(scratch, scores, width, peak, total)

    def _store_weights(self, scratch: Any, scores: Any, width: int, peak: Any, total: Any) -> None:
        """In the place of scores."""
        with T.serial(0, self.block) as key:
            weight = local(width)
            with T.vectorized(0, width) as lane:
                T.buffer_store(weight, exp2(scratch[scores + key * self.tile + lane] - peak[lane]), [lane])
            with T.vectorized(0, width) as lane:
                T.buffer_store(scratch, weight[lane], [scores + key * self.tile + lane])
            with T.vectorized(0, width) as lane:
                T.buffer_store(total, total[lane] + weight[lane], [lane])

    def _weigh(self, v: Any, scratch: Any, head: Any, block: Any, scores: Any, sums: Any) -> None:
        """sums += weights x values, as many channels at a time as registers hold."""
        whole, rest = divmod(self.value_depth, self.channels)
        with T.serial(0, whole) as part:
            self._weigh_part(v, scratch, head, block, scores, sums, part * self.channels, self.channels)
        if rest:
            self._weigh_part(v, scratch, head, block, scores, sums, whole * self.channels, rest)

    def _weigh_part(
        self, v: Any, scratch: Any, head: Any, block: Any, scores: Any, sums: Any, first: Any, channels: int
    ) -> None:
        base = flat([head // self.heads, head % self.heads, 0, first], self.v_strides)
        together = self._together
        keys = T.min(self.block, self.keys - block * self.block)
        weights = scratch if self.dot is None else words(scratch)
        held = [[local(width) for _, width in self._vectors] for _ in range(channels)]

        def places() -> Iterator[tuple[Any, int, Any]]:
            for channel, vectors in enumerate(held):
                for vector, (start, width) in zip(vectors, self._vectors, strict=True):
                    yield vector, width, sums + (first + channel) * self.tile + start

        for vector, width, at in places():
            with T.vectorized(0, width) as lane:
                T.buffer_store(vector, scratch[at + lane], [lane])
        with T.serial(0, (keys + together - 1) // together) as step:
            token = base + (block * (self.block // together) + step) * self.v_strides[2]
            [values] = self._lefts(v, [token], self.v_strides[3], channels)
            for channel, vectors in enumerate(held):
                for vector, (start, width) in zip(vectors, self._vectors, strict=True):
                    place = scores + step * self.tile + start
                    add_products(vector, [values[channel]], weights, place, width, self.dot, "float32")
        for vector, width, at in places():
            with T.vectorized(0, width) as lane:
                T.buffer_store(scratch, vector[lane], [at + lane])

    def _finish(self, operands: Sequence[Any], head: Any, first: Any, sums: Any, total: list[Any]) -> None:
        scratch, out, scale = operands[3], operands[4], value_scale(self, operands)
        for share, (start, width) in zip(total, self._vectors, strict=True):
            with T.vectorized(0, width) as lane:
                T.buffer_store(share, scale / share[lane], [lane])
            with T.serial(0, self.value_depth) as channel:
                with T.vectorized(0, width) as lane:
                    at = [head // self.heads, head % self.heads, first + start + lane, channel]
                    value = scratch[sums + channel * self.tile + start + lane] * share[lane]
                    store(out, value, flat(at, self.out_strides))
