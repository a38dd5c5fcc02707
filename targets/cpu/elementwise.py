"""Elementwise groups, copies, broadcasts, nearest resizing and pooling: one expression over strided loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression
from ..framing import Framing
from .kernel import Kernel, evaluate, flat, lane_chunks, store, unflatten

SERIAL_BELOW = 1 << 13
"""Fewer elements than this are not worth waking the other threads for."""


@dataclass(frozen=True)
class Map(Kernel):
    """Operand 0 is the output; the expression loads the others. The innermost axis runs in vectors."""

    extents: tuple[int, ...]
    out_strides: tuple[int, ...]
    expression: Expression
    lanes: int

    def body(self, operands: Sequence[Any]) -> None:
        inner = self.extents[-1]
        block = min(inner, self.lanes * 16)
        blocks = inner // block
        outer = math.prod(self.extents[:-1])
        small = outer * inner < SERIAL_BELOW
        with (T.serial if small else T.parallel)(0, outer * blocks) as task:
            coordinates = unflatten(task // blocks, self.extents[:-1])
            position = task % blocks
            self._run(operands, coordinates, position * block, block)
            if inner % block:
                with T.If(position == blocks - 1):
                    with T.Then():
                        self._run(operands, coordinates, blocks * block, inner % block)

    def _run(self, operands: Sequence[Any], outer: list[Any], start: Any, count: int) -> None:
        vectors = count // self.lanes
        if vectors:
            with T.serial(0, vectors) as vector:
                self._vector(operands, outer, start + vector * self.lanes, self.lanes)
        for first, width in lane_chunks(count % self.lanes, self.lanes):
            self._vector(operands, outer, start + vectors * self.lanes + first, width)

    def _vector(self, operands: Sequence[Any], outer: list[Any], start: Any, width: int) -> None:
        with T.vectorized(0, width) as lane:
            at = [*outer, start + lane]
            result = evaluate(self.expression, operands, at, ())
            store(operands[0], result, flat(at, self.out_strides))


def zeros(out: Any, first: Any, count: int, lanes: int) -> None:
    """Write so many from element ``first`` on."""
    whole = count // lanes
    with T.serial(0, whole) as vector:
        with T.vectorized(0, lanes) as lane:
            store(out, T.float32(0), first + vector * lanes + lane)
    for start, width in lane_chunks(count % lanes, lanes):
        with T.vectorized(0, width) as lane:
            store(out, T.float32(0), first + whole * lanes + start + lane)


@dataclass(frozen=True)
class Frame(Kernel):
    """Operand 0: out, dense [planes, height, width, channels], of which rows and columns at the edge become zero.

    ``before`` and ``after`` are how many rows and columns.
    """

    planes: int
    height: int
    width: int
    channels: int
    before: tuple[int, int]
    after: tuple[int, int]
    lanes: int

    def body(self, operands: Sequence[Any]) -> None:
        with T.serial(0, self.planes * self.height) as line:
            row, at = line % self.height, line * self.width
            inside = T.And(row >= self.before[0], row < self.height - self.after[0])
            with T.If(inside):
                with T.Then():
                    zeros(operands[0], at * self.channels, self.before[1] * self.channels, self.lanes)
                    right = (at + self.width - self.after[1]) * self.channels
                    zeros(operands[0], right, self.after[1] * self.channels, self.lanes)
                with T.Else():
                    zeros(operands[0], at * self.channels, self.width * self.channels, self.lanes)


@dataclass(frozen=True)
class Pad(Framing, Kernel):
    """Operand 0: out, dense; operand 1: the images, framed by zeros in out."""

    lanes: int

    def body(self, operands: Sequence[Any]) -> None:
        out, image = operands
        rows, columns = self.image
        top, left = self.before
        with T.parallel(0, self.planes * self.height) as line:
            row = line % self.height - top
            at = line * self.width * self.channels

            def blank(first: int, runs: int) -> None:
                zeros(out, at + first * self.channels, runs * self.channels, self.lanes)

            with T.If(T.And(row >= 0, row < rows)):
                with T.Then():
                    blank(0, left)
                    with T.serial(0, columns) as column:
                        source = flat([line // self.height, row, column], self.in_strides[:3])
                        target = at + (left + column) * self.channels
                        self._copy(out, target, image, source)
                    blank(left + columns, self.width - left - columns)
                with T.Else():
                    blank(0, self.width)

    def _copy(self, out: Any, target: Any, image: Any, source: Any) -> None:
        step = self.in_strides[3]
        full = self.channels // self.lanes
        if full:
            with T.serial(0, full) as vector:
                with T.vectorized(0, self.lanes) as lane:
                    channel = vector * self.lanes + lane
                    store(out, image[source + channel * step], target + channel)
        for start, width in lane_chunks(self.channels % self.lanes, self.lanes):
            with T.vectorized(0, width) as lane:
                channel = full * self.lanes + start + lane
                store(out, image[source + channel * step], target + channel)
