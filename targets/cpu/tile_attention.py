"""Attention on a matrix unit, for queries, keys and values in bfloat16.

The same recurrence as ``attention.py``, with both products on the unit's tiles (see ``tiles.py``). Scores are computed
transposed, keys by queries: so the softmax runs along vectors of queries without crossing them, and two rows of its
weights, interleaved, are at once what the second product wants for an operand. Weights are rounded to bfloat16; their
sum, which divides the result, is of the weights as rounded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..heads import HeadShapes
from ..packing import TILE_ROWS
from .attention import LOWEST, score_scale, value_scale
from .kernel import Kernel, fill, flat, local, store
from .tiles import LEFT, RIGHT, ROW_BYTES, STEP, SUMS, WIDTH, configure, load_tile, store_tile, unit
from .vector_math import coarse_exp2, exp2

QUERIES = WIDTH
"""In a run."""

TILE = TILE_ROWS * TILE_ROWS
"""Floats, or pairs of bfloat16 numbers, of a tile."""

LANES = TILE_ROWS

AT_ONCE = 4
"""Maxima that are taken side by side: one after the other they would wait for each other."""


def joined(low: Any, high: Any) -> Any:
    """Two bfloat16 numbers, as bits of float32 numbers, in the place of one float32."""
    return T.reinterpret("float32", T.bitwise_or(high, T.shift_right(low, T.uint32(16))))


def _up(count: int, unit_size: int) -> int:
    return math.ceil(count / unit_size) * unit_size


@dataclass(frozen=True)
class TileAttention(HeadShapes, Kernel):
    """Operands: q, k, v, packed keys and values (bfloat16), scratch (float32), out, [scales of q, k and v].

    First keys are copied and values turned, both padded with zeros to whole tiles; then each task takes runs of 32
    queries of one head against ``block`` keys at a time.
    """

    block: int
    blocks: int

    @property
    def bands(self) -> int:
        """Runs of queries."""
        return math.ceil(self.queries / QUERIES)

    @property
    def _depth(self) -> int:
        return _up(self.depth, STEP)

    @property
    def _value_depth(self) -> int:
        return _up(self.value_depth, TILE_ROWS)

    @property
    def _keys(self) -> int:
        return _up(self.keys, self.block)

    @property
    def _head_words(self) -> int:
        """A head's keys [key, channel], then its values [channel, key]."""
        return self._keys * (self._depth + self._value_depth)

    @property
    def _tasks(self) -> int:
        return self.batch * self.heads * self.blocks

    @property
    def packed_words(self) -> int:
        return self.batch * self.heads * self._head_words

    @property
    def scratch_floats(self) -> int:
        """Of each task its queries, their scores and weights against a block of keys, and the sums of the values.

        Queries and weights lie as pairs of bfloat16 numbers in tiles [step, side, pair, query].
        """
        return self._tasks * self._task_floats

    @property
    def _task_floats(self) -> int:
        return (self._depth // 2 + self.block + self.block // 2 + self._value_depth) * QUERIES

    def body(self, operands: Sequence[Any]) -> None:
        _, k, v, packed, *_ = operands
        groups = self._keys // STEP
        with T.parallel(0, self.batch * self.heads * groups) as task:
            self._pack_keys(k, v, packed, task // groups, task % groups * STEP)
        per_block = math.ceil(self.bands / self.blocks)
        with T.parallel(0, self._tasks) as task:
            head, first = task // self.blocks, task % self.blocks * per_block
            configure([TILE_ROWS] * 8)
            with T.serial(0, T.min(per_block, self.bands - first)) as band:
                start = T.min((first + band) * QUERIES, max(self.queries - QUERIES, 0))
                self._band(operands, task, head, start)
            unit("tilerelease")

    def _pack_keys(self, k: Any, v: Any, packed: Any, head: Any, first: Any) -> None:
        """As many keys as a step has, and their values."""
        at = head * self._head_words
        k_base, v_base = (
            flat([head // self.heads, head % self.heads], strides[:2])
            for strides in (self.k_strides, self.v_strides)
        )
        with T.serial(0, STEP) as step:
            key = first + step
            seen = T.min(key, self.keys - 1)

            def kept(value: Any, key: Any = key) -> Any:
                if self._keys == self.keys:
                    return value
                return T.Select(key < self.keys, value, T.float32(0))

            with T.serial(0, self.depth) as channel:
                value = k[k_base + flat([seen, channel], self.k_strides[2:])]
                store(packed, kept(value), at + key * self._depth + channel)
            with T.serial(0, self._depth - self.depth) as channel:
                store(packed, T.float32(0), at + key * self._depth + self.depth + channel)
            turned = at + self._keys * self._depth + key
            with T.serial(0, self.value_depth) as channel:
                value = v[v_base + flat([seen, channel], self.v_strides[2:])]
                store(packed, kept(value), turned + channel * self._keys)
            with T.serial(0, self._value_depth - self.value_depth) as channel:
                store(packed, T.float32(0), turned + (self.value_depth + channel) * self._keys)

    def _band(self, operands: Sequence[Any], task: Any, head: Any, first: Any) -> None:
        q, packed, scratch = operands[0], operands[3], operands[4]
        keys = head * self._head_words
        values = keys + self._keys * self._depth
        queries = task * self._task_floats
        weights = queries + self._depth // 2 * QUERIES
        scores = weights + self.block // 2 * QUERIES
        sums = scores + self.block * QUERIES
        self._turn_queries(q, scratch, head, first, queries)
        top, total = ([local(LANES) for _ in range(2)] for _ in range(2))
        for side in range(2):
            fill(top[side], LANES, LOWEST)
            fill(total[side], LANES, 0.0)
        with T.serial(0, self._value_depth * 2) as row:
            with T.vectorized(0, LANES) as lane:
                T.buffer_store(scratch, T.float32(0), [sums + row * LANES + lane])
        with T.serial(0, self._keys // self.block) as block:
            with T.serial(0, self.block // (2 * TILE_ROWS)) as group:
                key = block * self.block + group * (2 * TILE_ROWS)
                self._scores(packed, scratch, keys + key * self._depth, queries, scores, group)
            for side in range(2):
                self._soften(operands, block, side, scores, sums, weights, top[side], total[side])
            self._weigh(packed, scratch, values + block * self.block, weights, sums)
        self._finish(operands, head, first, sums, total)

    def _turn_queries(self, q: Any, scratch: Any, head: Any, first: Any, at: Any) -> None:
        """Into tiles. Fewer queries than a run has are repeated."""
        base = flat([head // self.heads, head % self.heads], self.q_strides[:2])

        def value(query: Any, channel: Any) -> Any:
            found = q[base + flat([query, T.min(channel, self.depth - 1)], self.q_strides[2:])]
            return found if self._depth == self.depth else T.Select(channel < self.depth, found, T.float32(0))

        with T.serial(0, QUERIES) as query:
            taken = T.min(first + query, self.queries - 1)
            place = at + query // LANES * TILE + query % LANES
            with T.serial(0, self._depth // 2) as pair:
                low, high = (T.reinterpret("uint32", value(taken, 2 * pair + side)) for side in range(2))
                spot = place + pair // TILE_ROWS * (2 * TILE) + pair % TILE_ROWS * LANES
                T.buffer_store(scratch, joined(low, high), [spot])

    def _scores(self, packed: Any, scratch: Any, keys: Any, queries: Any, scores: Any, group: Any) -> None:
        """32 keys against 32 queries."""
        words = packed.words
        for register in SUMS:
            unit("tilezero", T.uint8(register))
        with T.serial(0, self._depth // STEP) as step:
            for side in range(2):
                at = keys + side * TILE_ROWS * self._depth + step * STEP
                load_tile(LEFT[side], words, at, 2 * self._depth)
                load_tile(RIGHT[side], scratch, queries + (step * 2 + side) * TILE, ROW_BYTES)
            for register in SUMS:
                left, right = LEFT[register // 2], RIGHT[register % 2]
                unit("tdpbf16ps", T.uint8(register), T.uint8(left), T.uint8(right))
        for register in SUMS:
            row = group * 2 + register // 2
            at = scores + row * (TILE_ROWS * QUERIES) + register % 2 * LANES
            store_tile(register, scratch, at, 4 * QUERIES)

    def _soften(
        self, operands: Sequence[Any], block: Any, side: int, scores: Any, sums: Any, weights: Any,
        top: Any, total: Any,
    ) -> None:  # fmt: skip
        """Scores become weights; what was summed under the old maximum is scaled to the new one."""
        scratch, scale = operands[4], score_scale(self, operands)
        peak, factor = local(LANES), local(LANES)

        def score(key: Any, lane: Any) -> Any:
            return scratch[scores + key * QUERIES + side * LANES + lane]

        if self._keys != self.keys:
            # Keys that pad the last block must not be seen.
            with T.serial(0, self.block) as key:
                with T.If(block * self.block + key >= self.keys):
                    with T.Then():
                        with T.vectorized(0, LANES) as lane:
                            at = scores + key * QUERIES + side * LANES + lane
                            T.buffer_store(scratch, T.float32(LOWEST), [at])
        peaks = [local(LANES) for _ in range(AT_ONCE)]
        for one in peaks:
            fill(one, LANES, LOWEST)
        with T.serial(0, self.block // AT_ONCE) as run:
            for place, one in enumerate(peaks):
                with T.vectorized(0, LANES) as lane:
                    T.buffer_store(one, T.max(one[lane], score(run * AT_ONCE + place, lane)), [lane])
        with T.vectorized(0, LANES) as lane:
            highest = functools.reduce(T.max, [one[lane] for one in peaks])
            T.buffer_store(peak, T.max(top[lane], highest * scale), [lane])
        with T.vectorized(0, LANES) as lane:
            T.buffer_store(factor, exp2(top[lane] - peak[lane]), [lane])
        with T.vectorized(0, LANES) as lane:
            T.buffer_store(top, peak[lane], [lane])
        with T.vectorized(0, LANES) as lane:
            T.buffer_store(total, total[lane] * factor[lane], [lane])
        with T.serial(0, self.value_depth) as channel:
            with T.vectorized(0, LANES) as lane:
                at = sums + channel * QUERIES + side * LANES + lane
                T.buffer_store(scratch, scratch[at] * factor[lane], [at])
        whole = T.Ramp(0, 1, LANES)
        with T.serial(0, self.block // 2) as pair:
            rounded: list[Any] = []
            for which in range(2):
                found = scratch[T.Ramp(scores + (pair * 2 + which) * QUERIES + side * LANES, 1, LANES)]
                weight = coarse_exp2(found * scale - peak[whole])
                bits = T.reinterpret(f"uint32x{LANES}", weight) + T.uint32(0x8000)
                # Kept in a local array: as an expression it would be computed for each of its uses.
                kept = T.alloc_buffer([LANES], "uint32", scope="global")
                T.buffer_store(kept, T.bitwise_and(bits, T.uint32(0xFFFF0000)), [whole])
                rounded.append(kept[whole])
            low, high = (T.reinterpret(f"float32x{LANES}", one) for one in rounded)
            T.buffer_store(total, total[whole] + (low + high), [whole])
            at = weights + (pair // TILE_ROWS * 2 + side) * TILE + pair % TILE_ROWS * LANES
            word = T.bitwise_or(rounded[1], T.shift_right(rounded[0], T.uint32(16)))
            T.buffer_store(scratch, T.reinterpret(f"float32x{LANES}", word), [T.Ramp(at, 1, LANES)])

    def _weigh(self, packed: Any, scratch: Any, values: Any, weights: Any, sums: Any) -> None:
        """sums += values x weights, two tiles of channels at a time."""
        words = packed.words
        tiles = self._value_depth // TILE_ROWS

        def run(first: Any, count: int) -> None:
            def held() -> Iterator[tuple[int, Any]]:
                for register in SUMS[: 2 * count]:
                    row = (first + register // 2) * (TILE_ROWS * QUERIES)
                    yield register, sums + row + register % 2 * LANES

            for register, at in held():
                load_tile(register, scratch, at, 4 * QUERIES)
            with T.serial(0, self.block // STEP) as step:
                for side in range(2):
                    load_tile(RIGHT[side], scratch, weights + (step * 2 + side) * TILE, ROW_BYTES)
                for side in range(count):
                    at = values + (first + side) * (TILE_ROWS * self._keys) + step * STEP
                    load_tile(LEFT[side], words, at, 2 * self._keys)
                for register, _ in held():
                    left, right = LEFT[register // 2], RIGHT[register % 2]
                    unit("tdpbf16ps", T.uint8(register), T.uint8(left), T.uint8(right))
            for register, at in held():
                store_tile(register, scratch, at, 4 * QUERIES)

        if tiles // 2:
            with T.serial(0, tiles // 2) as pair:
                run(pair * 2, 2)
        if tiles % 2:
            run(tiles - 1, 1)

    def _finish(self, operands: Sequence[Any], head: Any, first: Any, sums: Any, total: list[Any]) -> None:
        scratch, out, scale = operands[4], operands[5], value_scale(self, operands)
        for side, shares in enumerate(total):
            with T.vectorized(0, LANES) as lane:
                T.buffer_store(shares, scale / shares[lane], [lane])
            with T.serial(0, max(min(LANES, self.queries - side * LANES), 0)) as lane:
                query = side * LANES + lane
                base = flat([head // self.heads, head % self.heads, first + query], self.out_strides[:3])
                share = shares[lane]
                with T.serial(0, self.value_depth) as channel:
                    value = scratch[sums + channel * QUERIES + query] * share
                    store(out, value, base + channel * self.out_strides[3])
