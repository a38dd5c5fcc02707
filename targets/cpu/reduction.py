"""Sums, products and extremes over some axes of an expression: what no template of its own computes.

Depthwise and grouped convolutions, products of two computed matrices, pooling and statistics over any axes are such.
A tile is a few neighbours along the innermost two axes, so that what they have in common is loaded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression, loads_of
from .elementwise import SERIAL_BELOW
from .kernel import Kernel, evaluate, fill, flat, lane_chunks, local, reduce_lanes, store, unflatten

JOINS: dict[str, tuple[float, Callable[[Any, Any], Any]]] = {
    "Add": (0.0, lambda a, b: a + b),
    "Mul": (1.0, lambda a, b: a * b),
    "Max": (-math.inf, lambda a, b: T.max(a, b)),
    "Min": (math.inf, lambda a, b: T.min(a, b)),
}
"""What a reduction begins with, and how it goes on."""

HEIGHTS = (4, 3, 2, 1)


@dataclass(frozen=True)
class Reduction(Kernel):
    """Operand 0, out, is ``epilogue`` of what ``operator`` makes of each of ``terms`` over the axes ``reduce``.

    Loads of the terms have strides along (*reduce, *extents), those of the epilogue along ``extents``.
    """

    extents: tuple[int, ...]
    out_strides: tuple[int, ...]
    reduce: tuple[int, ...]
    operator: str
    terms: tuple[Expression, ...]
    epilogue: Expression
    lanes: int

    @property
    def along(self) -> bool:
        """Whether vectors lie along the last axis of the reduction rather than along the innermost of the result."""
        loads = [load.strides for term in self.terms for load in loads_of(term)]
        last = len(self.reduce) - 1
        beside = self.extents != (1,) and all(strides[-1] in (0, 1) for strides in loads)
        return not beside and self.reduce[-1] >= self.lanes and all(one[last] in (0, 1) for one in loads)

    def body(self, operands: Sequence[Any]) -> None:
        whole = self.extents if self.along else self.extents[:-1] or (1,)
        height = next(size for size in HEIGHTS if whole[-1] % size == 0)
        outer = (*whole[:-1], whole[-1] // height)
        inner = 1 if self.along else self.extents[-1]
        vectors = max(inner // self.lanes, 1)
        work = math.prod(self.extents) * math.prod(self.reduce)
        with (T.serial if work < SERIAL_BELOW else T.parallel)(0, math.prod(outer) * vectors) as task:
            at = unflatten(task // vectors, outer)
            rows = [[*at[:-1], at[-1] * height + row] for row in range(height)]
            if self.along:
                self._rows(operands, rows)
                return
            rows = rows if len(self.extents) > 1 else [[]]
            position = task % vectors
            if inner >= self.lanes:
                self._tile(operands, rows, position * self.lanes, self.lanes)
            tail = lane_chunks(inner % self.lanes, self.lanes)
            if tail:
                with T.If(position == vectors - 1):
                    with T.Then():
                        for start, width in tail:
                            self._tile(operands, rows, inner // self.lanes * self.lanes + start, width)

    def _tile(self, operands: Sequence[Any], rows: list[list[Any]], start: Any, width: int) -> None:
        """As many results of each row, side by side."""
        held = [[local(width) for _ in self.terms] for _ in rows]
        for one in (one for sums in held for one in sums):
            fill(one, width, JOINS[self.operator][0])
        with ExitStack() as loops:
            inside = [loops.enter_context(T.serial(0, size)) for size in self.reduce]
            for row, sums in zip(rows, held, strict=True):
                self._join(operands, sums, width, lambda lane, row=row: [*inside, *row, start + lane])
        for row, sums in zip(rows, held, strict=True):
            with T.vectorized(0, width) as lane:
                at = [*row, start + lane]
                value = evaluate(self.epilogue, operands, at, [one[lane] for one in sums])
                store(operands[0], value, flat(at, self.out_strides))

    def _rows(self, operands: Sequence[Any], places: list[list[Any]]) -> None:
        """One result at each place, whose terms lie side by side."""
        start, operator = JOINS[self.operator]
        held = [[local(self.lanes) for _ in self.terms] for _ in places]
        for one in (one for sums in held for one in sums):
            fill(one, self.lanes, start)
        *outer, size = self.reduce
        with ExitStack() as loops:
            inside = [loops.enter_context(T.serial(0, extent)) for extent in outer]

            def join(first: Any, width: int) -> None:
                for at, sums in zip(places, held, strict=True):
                    self._join(operands, sums, width, lambda lane, at=at: [*inside, first + lane, *at])

            with T.serial(0, size // self.lanes) as vector:
                join(vector * self.lanes, self.lanes)
            for first, width in lane_chunks(size % self.lanes, self.lanes):
                join(size // self.lanes * self.lanes + first, width)
        for at, sums in zip(places, held, strict=True):
            results = [local(1) for _ in sums]
            for result, one in zip(results, sums, strict=True):
                T.buffer_store(result, reduce_lanes(one, self.lanes, operator), [0])
            value = evaluate(self.epilogue, operands, at, [result[0] for result in results])
            store(operands[0], value, flat(at, self.out_strides))

    def _join(
        self, operands: Sequence[Any], sums: list[Any], width: int, at: Callable[[Any], list[Any]]
    ) -> None:
        _, operator = JOINS[self.operator]
        for term, one in zip(self.terms, sums, strict=True):
            with T.vectorized(0, width) as lane:
                joined = operator(one[lane], evaluate(term, operands, at(lane), ()))
                T.buffer_store(one, joined, [lane])
