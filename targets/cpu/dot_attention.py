"""Attention by dot products of two bfloat16 numbers, where a vector unit has those.

The recurrence and the order are those of ``attention.py``. Neighbouring channels of queries and keys, and the weights
and values of neighbouring keys, share words. Weights are rounded to bfloat16; their sum, which divides the result, is
of the weights as rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from .attention import Attention, score_scale
from .dots import DOTS
from .kernel import Bfloat16, Kernel, flat, lane_chunks, local, raw, words
from .vector_math import COARSE_LANES, coarse_exp2, exp2

UPPER_HALF = 0xFFFF0000


def power_of_two(target: Any, width: int, source: Any, at: Any, peak: Any) -> None:
    """target = 2 to the power of source - peak, to a part in ten thousand at least."""
    if width == COARSE_LANES:
        row = T.Ramp(0, 1, width)
        T.buffer_store(target, coarse_exp2(source[T.Ramp(at, 1, width)] - peak[row]), [row])
        return
    with T.vectorized(0, width) as lane:
        T.buffer_store(target, exp2(source[at + lane] - peak[lane]), [lane])


@dataclass(frozen=True)
class PairedRows(Kernel):
    """Operands: x [.., row, column] in bfloat16, words of two neighbours [outer.., row pairs, columns].

    ``strides`` are those of x along (outer.., row, column). The neighbour that an odd last row lacks is zero.
    """

    outer: tuple[int, int]
    rows: int
    columns: int
    strides: tuple[int, ...]
    lanes: int

    @property
    def pairs(self) -> int:
        return (self.rows + 1) // 2

    def body(self, operands: Sequence[Any]) -> None:
        x, out = raw(operands[0]), operands[1]
        heads = self.outer[1]
        with T.parallel(0, self.outer[0] * heads * self.pairs) as place:
            head, pair = place // self.pairs, place % self.pairs
            base = flat([head // heads, head % heads], self.strides[:2])
            full = self.columns // self.lanes

            def write(first: Any, width: int) -> None:
                with T.vectorized(0, width) as lane:
                    low, high = (
                        T.cast(x[base + flat([row, first + lane], self.strides[2:])], "uint32")
                        for row in (2 * pair, T.min(2 * pair + 1, self.rows - 1))
                    )
                    if self.rows % 2:
                        high = T.Select(2 * pair + 1 < self.rows, high, T.uint32(0))
                    word = T.bitwise_or(low, T.shift_left(high, T.uint32(16)))
                    T.buffer_store(out, T.reinterpret("int32", word), [place * self.columns + first + lane])

            if full:
                with T.serial(0, full) as vector:
                    write(vector * self.lanes, self.lanes)
            for start, width in lane_chunks(self.columns % self.lanes, self.lanes):
                write(full * self.lanes + start, width)


@dataclass(frozen=True)
class DotAttention(Attention):
    """As ``Attention``, of operands in bfloat16: ``depth`` and ``block`` are even, ``tile`` is a multiple of ``lanes``.

    Values are words of ``PairedRows``. Strides of keys and values count words, and those of values pairs of keys.
    """

    instruction: str = ""

    @property
    def dot(self) -> str:
        return self.instruction

    @property
    def functions(self) -> str:
        return DOTS[self.dot].function(self.lanes)

    def body(self, operands: Sequence[Any]) -> None:
        q, k, *rest = operands
        super().body([q, words(k), *rest])

    def _turn_queries(self, operands: Sequence[Any], head: Any, first: Any, at: Any) -> None:
        """Pair by pair of channels, as they are: what they are scaled by would round them once more."""
        q, scratch = operands[0], operands[3]
        assert isinstance(q, Bfloat16)
        base = flat([head // self.heads, head % self.heads, first], self.q_strides[:3])
        with T.serial(0, self._steps) as pair:
            with T.serial(0, self.tile) as query:
                low, high = (
                    T.cast(q.words[base + flat([query, 2 * pair + side], self.q_strides[2:])], "uint32")
                    for side in range(2)
                )
                word = T.bitwise_or(low, T.shift_left(high, T.uint32(16)))
                T.buffer_store(scratch, T.reinterpret("float32", word), [at + pair * self.tile + query])

    def _score(self, product: Any, operands: Sequence[Any]) -> Any:
        return product * score_scale(self, operands)

    def _store_weights(self, scratch: Any, scores: Any, width: int, peak: Any, total: Any) -> None:
        """Those of two keys in the place of the first one's scores, and so on."""
        row = T.Ramp(0, 1, width)
        with T.serial(0, self.block // 2) as pair:
            rounded: list[Any] = []
            for side in range(2):
                weight = local(width)
                power_of_two(weight, width, scratch, scores + (2 * pair + side) * self.tile, peak)
                # Halves go up: the sum is of what is multiplied, either way.
                bits = T.reinterpret(f"uint32x{width}", weight[row]) + T.uint32(0x8000)
                # Kept in a local array: as an expression it would be computed for each of its uses.
                kept = T.alloc_buffer([width], "uint32", scope="global")
                T.buffer_store(kept, T.bitwise_and(bits, T.uint32(UPPER_HALF)), [row])
                rounded.append(kept[row])
            low, high = (T.reinterpret(f"float32x{width}", one) for one in rounded)
            T.buffer_store(total, total[row] + (low + high), [row])
            word = T.bitwise_or(rounded[1], T.shift_right(rounded[0], T.uint32(16)))
            at = T.Ramp(scores + pair * self.tile, 1, width)
            T.buffer_store(scratch, T.reinterpret(f"float32x{width}", word), [at])
