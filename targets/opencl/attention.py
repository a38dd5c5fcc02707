"""Attention with running maxima and sums (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).

A work-group has a run of queries of one head. Keys pass by in blocks: their scores are computed into local memory,
softened there against the largest score so far, and the values are added up in registers, of which each work-item has
those of some (query, channels). The matrix of scores is never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..compiled import Launch
from ..heads import HeadShapes
from .kernel import ADDRESSES, Kernel
from .text import Code, flat, kind, lanes_for, sum_of

LOG2_E = 1.4426950408889634
LOWEST = -3.0e38
"""Of a score: a hidden key's weight is zero beside any other's, and where all are hidden all weigh the same."""


@dataclass(frozen=True)
class Attention(HeadShapes, Kernel):
    """Operands: q, k, v, out, [mask].

    ``tile`` queries and ``block`` keys at a time; ``items`` work-items.
    """

    tile: int
    block: int
    items: int
    causal: bool = False
    mask_strides: tuple[int, ...] = ()

    @property
    def launch(self) -> Launch:
        runs = math.ceil(self.queries / self.tile)
        return Launch((self.items, runs, self.batch * self.heads), (self.items, 1, 1))

    @property
    def flops(self) -> float:
        scores = self.batch * self.heads * self.queries * self.keys
        return scores * (2.0 * (self.depth + self.value_depth) + 5.0)

    @property
    def registers(self) -> int:
        """Sums of values, and a vector each of query and key."""
        return (self._held + 1) * self._lanes + 2 * self._key_lanes + ADDRESSES

    @property
    def local_bytes(self) -> int:
        return 4 * (self.tile * (self.depth + self.block) + 3 * self.tile)

    @property
    def _key_lanes(self) -> int:
        return lanes_for(self.depth, self.k_strides[3])

    @property
    def _lanes(self) -> int:
        return lanes_for(self.value_depth, self.v_strides[3])

    @property
    def _pieces(self) -> int:
        """(query, channels) of the run."""
        return self.tile * (self.value_depth // self._lanes)

    @property
    def _held(self) -> int:
        """Of them, those of a work-item."""
        return math.ceil(self._pieces / self.items)

    def body(self, code: Code) -> None:
        code.add(f"__local float query[{self.tile * self.depth}], weight[{self.tile * self.block}];")
        code.add(f"__local float top[{self.tile}], total[{self.tile}], factor[{self.tile}];")
        code.add("const int item = get_local_id(0), both = get_global_id(2);")
        code.add(f"const int first = get_global_id(1) * {self.tile};")
        code.add(f"const int image = both / {self.heads}, head = both % {self.heads};")
        with code.block(f"for (int at = item; at < {self.tile * self.depth}; at += {self.items})"):
            place = f"min(first + at / {self.depth}, {self.queries - 1})"
            source = flat(("image", "head", place, f"at % {self.depth}"), self.q_strides)
            code.add(f"query[at] = {code.load(0, source)} * {self.scale * LOG2_E!r}f;")
        with code.block(f"for (int at = item; at < {self.tile}; at += {self.items})"):
            code.add(f"top[at] = {LOWEST!r}f; total[at] = 0.0f;")
        code.add(f"{kind(self._lanes)} sum[{self._held}];")
        code.add("#pragma unroll")
        code.add(f"for (int h = 0; h < {self._held}; h++) sum[h] = 0.0f;")
        with code.block(f"for (int start = 0; start < {self.keys}; start += {self.block})"):
            code.add(f"const int count = min({self.block}, {self.keys} - start);")
            code.add("barrier(CLK_LOCAL_MEM_FENCE);")
            self._scores(code)
            code.add("barrier(CLK_LOCAL_MEM_FENCE);")
            self._soften(code)
            code.add("barrier(CLK_LOCAL_MEM_FENCE);")
            self._weigh(code)
        self._finish(code)

    def _scores(self, code: Code) -> None:
        lanes = self._key_lanes
        with code.block(f"for (int at = item; at < {self.tile * self.block}; at += {self.items})"):
            code.add(f"const int mine = at / {self.block}, key = start + at % {self.block};")
            code.add(f"const int row = min(first + mine, {self.queries - 1});")
            with code.block(f"if (key < {self.keys})"):
                code.add(f"{kind(lanes)} product = 0.0f;")
                with code.block(f"for (int c = 0; c < {self.depth}; c += {lanes})"):
                    source = flat(("image", "head", "key", "c"), self.k_strides)
                    left = f"query + mine * {self.depth} + c"
                    left = f"vload{lanes}(0, {left})" if lanes > 1 else f"*({left})"
                    code.add(f"product += {left} * {code.load(1, source, lanes)};")
                code.add(f"float score = {sum_of(lanes, 'product')};")
                if self.mask_strides:
                    mask = flat(("image", "head", "row", "key"), self.mask_strides)
                    if self.dtypes[4] == "bool":
                        code.add(f"score = p4[{mask}] ? score : {LOWEST!r}f;")
                    else:
                        code.add(f"score = fmax(score + {code.load(4, mask)} * {LOG2_E!r}f, {LOWEST!r}f);")
                if self.causal:
                    code.add(f"score = key <= row ? score : {LOWEST!r}f;")
                code.add("weight[at] = score;")

    def _soften(self, code: Code) -> None:
        with code.block(f"for (int at = item; at < {self.tile}; at += {self.items})"):
            code.add(f"__local float *mine = weight + at * {self.block};")
            code.add("float peak = top[at], part = 0.0f;")
            code.add("for (int key = 0; key < count; key++) peak = fmax(peak, mine[key]);")
            code.add("factor[at] = exp2(top[at] - peak);")
            with code.block("for (int key = 0; key < count; key++)"):
                code.add("const float power = exp2(mine[key] - peak);")
                code.add("mine[key] = power; part += power;")
            code.add("total[at] = total[at] * factor[at] + part; top[at] = peak;")

    def _weigh(self, code: Code) -> None:
        lanes = self._lanes
        with self._mine(code):
            code.add("sum[h] *= factor[mine];")
            with code.block("for (int key = 0; key < count; key++)"):
                source = flat(("image", "head", "(start + key)", "channel"), self.v_strides)
                code.add(f"sum[h] += weight[mine * {self.block} + key] * {code.load(2, source, lanes)};")

    @contextmanager
    def _mine(self, code: Code) -> Iterator[None]:
        """A loop over the (query, channels) of a work-item; what there is too many of repeats the last."""
        channels = self.value_depth // self._lanes
        code.add("#pragma unroll")
        with code.block(f"for (int h = 0; h < {self._held}; h++)"):
            code.add(f"const int piece = min(item + h * {self.items}, {self._pieces - 1});")
            code.add(f"const int mine = piece / {channels}, channel = piece % {channels} * {self._lanes};")
            yield

    def _finish(self, code: Code) -> None:
        with self._mine(code), code.block(f"if (first + mine < {self.queries})"):
            code.add(f"const {kind(self._lanes)} value = sum[h] / total[mine];")
            place = flat(("image", "head", "(first + mine)", "channel"), self.out_strides)
            code.store(3, "value", place, self._lanes, self.out_strides[3])
