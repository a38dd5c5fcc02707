"""Rows of a table by their numbers: embeddings of tokens and of class labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from .kernel import Kernel, lane_chunks, store


@dataclass(frozen=True)
class Gather(Kernel):
    """Operands: out, dense [count, columns]; table; indices, dense [count].

    A number below zero counts from the end. One that is outside of the table takes its nearest row: numbers
    come from the caller, and nothing else may be read.
    """

    count: int
    rows: int
    columns: int
    table_strides: tuple[int, int]
    lanes: int

    def body(self, operands: Sequence[Any]) -> None:
        out, table, indices = operands
        with T.serial(0, self.count) as place:
            given = T.cast(indices[place], "int64")
            counted = T.Select(given < 0, given + self.rows, given)
            row = T.min(T.max(counted, T.int64(0)), T.int64(self.rows - 1))
            base = row * self.table_strides[0]
            full = self.columns // self.lanes
            with T.serial(0, full) as vector:
                with T.vectorized(0, self.lanes) as lane:
                    column = vector * self.lanes + lane
                    value = table[base + column * self.table_strides[1]]
                    store(out, value, place * self.columns + column)
            for start, width in lane_chunks(self.columns % self.lanes, self.lanes):
                with T.vectorized(0, width) as lane:
                    column = full * self.lanes + start + lane
                    value = table[base + column * self.table_strides[1]]
                    store(out, value, place * self.columns + column)
