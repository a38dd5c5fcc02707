"""Layer normalisation and softmax: statistics over the innermost axis, one row at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression
from .kernel import Kernel, evaluate, fill, flat, lane_chunks, local, reduce_lanes, store, unflatten
from .vector_math import exp


@dataclass(frozen=True)
class RowNorm(Kernel):
    """Operand 0: x, operand 1: out; coordinates are (*rows, column) and both are read at their strides."""

    rows: tuple[int, ...]
    columns: int
    x_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    epilogue: Expression
    lanes: int

    def body(self, operands: Sequence[Any]) -> None:
        with T.parallel(0, math.prod(self.rows)) as task:
            self.row(operands, unflatten(task, self.rows))

    @abstractmethod
    def row(self, operands: Sequence[Any], at: list[Any]) -> None:
        """Write the code for one row."""

    def x(self, operands: Sequence[Any], at: list[Any], column: Any) -> Any:
        return operands[0][flat([*at, column], self.x_strides)]

    def fold(
        self,
        start: float,
        operator: Callable[[Any, Any], Any],
        term: Callable[[Any], Any],
    ) -> Any:
        """``operator`` over ``term(column)`` of a whole row, left in a local array of one element."""
        lanes, result = local(self.lanes), local(1)
        fill(lanes, self.lanes, start)
        full = self.columns // self.lanes
        if full:
            with T.serial(0, full) as index:
                with T.vectorized(0, self.lanes) as lane:
                    joined = operator(lanes[lane], term(index * self.lanes + lane))
                    T.buffer_store(lanes, joined, [lane])
        for first, width in lane_chunks(self.columns % self.lanes, self.lanes):
            with T.vectorized(0, width) as lane:
                joined = operator(lanes[lane], term(full * self.lanes + first + lane))
                T.buffer_store(lanes, joined, [lane])
        T.buffer_store(result, reduce_lanes(lanes, self.lanes, operator), [0])
        return result

    def write(self, operands: Sequence[Any], at: list[Any], value: Callable[[Any], Any]) -> None:
        full = self.columns // self.lanes

        def vector(first: Any, width: int) -> None:
            with T.vectorized(0, width) as lane:
                where = [*at, first + lane]
                result = evaluate(self.epilogue, operands, where, [value(first + lane)])
                store(operands[1], result, flat(where, self.out_strides))

        if full:
            with T.serial(0, full) as index:
                vector(index * self.lanes, self.lanes)
        for first, width in lane_chunks(self.columns % self.lanes, self.lanes):
            vector(full * self.lanes + first, width)


@dataclass(frozen=True)
class LayerNorm(RowNorm):
    """Zero mean, unit variance; scale and bias are the epilogue's. Two passes: large means lose nothing."""

    epsilon: float

    def row(self, operands: Sequence[Any], at: list[Any]) -> None:
        total = self.fold(0.0, lambda a, b: a + b, lambda column: self.x(operands, at, column))
        mean = total[0] * T.float32(1.0 / self.columns)

        def square(column: Any) -> Any:
            off = self.x(operands, at, column) - mean
            return off * off

        squares = self.fold(0.0, lambda a, b: a + b, square)
        gain = local(1)
        variance = squares[0] * T.float32(1.0 / self.columns)
        T.buffer_store(gain, T.float32(1.0) / T.sqrt(variance + T.float32(self.epsilon)), [0])
        self.write(operands, at, lambda column: (self.x(operands, at, column) - mean) * gain[0])


@dataclass(frozen=True)
class Softmax(RowNorm):
    """Exponentials relative to the row's maximum, over their sum."""

    def row(self, operands: Sequence[Any], at: list[Any]) -> None:
        top = self.fold(-3.0e38, lambda a, b: T.max(a, b), lambda column: self.x(operands, at, column))

        def term(column: Any) -> Any:
            return exp(self.x(operands, at, column) - top[0])

        total = self.fold(0.0, lambda a, b: a + b, term)
        self.write(operands, at, lambda column: term(column) / total[0])
