"""3 x 3 convolutions of stride 1 by minimal filtering (see targets/winograd.py): the kernels before and after.

The first transforms the input: n x n positions, each a matrix [tiles, channels]. ``contraction.py`` multiplies each by
the transformed filters of its position, one position after the other: what one needs stays in the second-level cache,
and everything passes by once. The last transforms the sums back, where the epilogue meets them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression
from ..winograd import TAPS, transforms
from .kernel import Kernel, evaluate, fill, flat, lane_chunks, local, store, unflatten


@dataclass(frozen=True)
class WinogradInput(Kernel):
    """Operands: x, its transform [n * n, images * down * across, channels].

    ``tiles`` are (images, down, across), of ``outputs`` x ``outputs`` results each; ``size`` is rows and columns of x,
    ``before`` those of zeros above and left of it; ``x_strides`` are of (image, row, column), channels contiguous. What
    is stored is ``scale`` times the transform.
    """

    outputs: int
    tiles: tuple[int, int, int]
    size: tuple[int, int]
    before: tuple[int, int]
    channels: int
    x_strides: tuple[int, int, int]
    lanes: int
    scale: float = 1.0

    def body(self, operands: Sequence[Any]) -> None:
        with T.parallel(0, math.prod(self.tiles)) as tile:
            full = self.channels // self.lanes
            if full:
                with T.serial(0, full) as vector:
                    self._vector(operands, tile, vector * self.lanes, self.lanes)
            for start, width in lane_chunks(self.channels % self.lanes, self.lanes):
                self._vector(operands, tile, full * self.lanes + start, width)

    def _vector(self, operands: Sequence[Any], tile: Any, channel: Any, width: int) -> None:
        x, out = operands
        side = self.outputs + TAPS - 1
        image, down, across = unflatten(tile, self.tiles)
        rows = [down * self.outputs + place - self.before[0] for place in range(side)]
        columns = [across * self.outputs + place - self.before[1] for place in range(side)]
        matrix = transforms(self.outputs).inputs
        half = [[local(width) for _ in range(side)] for _ in range(side)]
        for column in range(side):
            taken = [local(width) for _ in range(side)]
            for row in range(side):
                at = flat([image, rows[row], columns[column]], self.x_strides) + channel
                inside = self._inside(rows[row], columns[column], row, column)
                if inside is None:
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(taken[row], x[at + lane], [lane])
                    continue
                with T.If(inside):
                    with T.Then():
                        with T.vectorized(0, width) as lane:
                            T.buffer_store(taken[row], x[at + lane], [lane])
                    with T.Else():
                        fill(taken[row], width, 0.0)
            for row in range(side):
                _combine(half[row][column], width, matrix[row], taken)
        count = math.prod(self.tiles)
        for row in range(side):
            for column in range(side):
                whole = local(width)
                _combine(whole, width, matrix[column], half[row])
                at = ((row * side + column) * count + tile) * self.channels + channel
                with T.vectorized(0, width) as lane:
                    store(out, _scaled(whole[lane], self.scale), at + lane)

    def _inside(self, row: Any, column: Any, down: int, across: int) -> Any:
        """Whether a pixel of a tile lies within x; None if every tile's does."""
        checks: list[Any] = []
        for axis, (at, place) in enumerate(((row, down), (column, across))):
            if place < self.before[axis]:
                checks.append(at >= 0)
            if (self.tiles[1 + axis] - 1) * self.outputs + place - self.before[axis] >= self.size[axis]:
                checks.append(at < self.size[axis])
        if not checks:
            return None
        found = checks[0]
        for check in checks[1:]:
            found = T.And(found, check)
        return found


@dataclass(frozen=True)
class WinogradOutput(Kernel):
    """Operands: sums [n * n, images * down * across, columns], out, then what the epilogue loads.

    Coordinates of the epilogue are (image, row, column, output channel). ``size`` is rows and columns of the result,
    which is ``scale`` times what the sums transform to.
    """

    outputs: int
    tiles: tuple[int, int, int]
    size: tuple[int, int]
    columns: int
    out_strides: tuple[int, int, int, int]
    epilogue: Expression
    lanes: int
    scale: float = 1.0

    def body(self, operands: Sequence[Any]) -> None:
        with T.parallel(0, math.prod(self.tiles)) as tile:
            full = self.columns // self.lanes
            if full:
                with T.serial(0, full) as vector:
                    self._vector(operands, tile, vector * self.lanes, self.lanes)
            for start, width in lane_chunks(self.columns % self.lanes, self.lanes):
                self._vector(operands, tile, full * self.lanes + start, width)

    def _vector(self, operands: Sequence[Any], tile: Any, first_column: Any, width: int) -> None:
        sums = operands[0]
        side, count = self.outputs + TAPS - 1, math.prod(self.tiles)
        matrix = transforms(self.outputs).outputs
        image, down, across = unflatten(tile, self.tiles)
        half = [[local(width) for _ in range(side)] for _ in range(self.outputs)]
        for column in range(side):
            taken = [local(width) for _ in range(side)]
            for row in range(side):
                at = ((row * side + column) * count + tile) * self.columns + first_column
                with T.vectorized(0, width) as lane:
                    T.buffer_store(taken[row], sums[at + lane], [lane])
            for row in range(self.outputs):
                _combine(half[row][column], width, matrix[row], taken)
        for row in range(self.outputs):
            for column in range(self.outputs):
                result = local(width)
                _combine(result, width, matrix[column], half[row])
                pixel = [image, down * self.outputs + row, across * self.outputs + column]
                self._store(operands, pixel, first_column, width, result, (row, column))

    def _store(
        self,
        operands: Sequence[Any],
        pixel: list[Any],
        column: Any,
        width: int,
        result: Any,
        place: tuple[int, int],
    ) -> None:
        def write() -> None:
            with T.vectorized(0, width) as lane:
                at = [*pixel, column + lane]
                value = evaluate(self.epilogue, operands, at, [_scaled(result[lane], self.scale)])
                store(operands[1], value, flat(at, self.out_strides))

        # Tiles at the end may reach beyond the picture.
        checks = [
            pixel[1 + axis] < self.size[axis]
            for axis in range(2)
            if (self.tiles[1 + axis] - 1) * self.outputs + place[axis] >= self.size[axis]
        ]
        if not checks:
            write()
            return
        with T.If(checks[0] if len(checks) == 1 else T.And(*checks)):
            with T.Then():
                write()


def _scaled(value: Any, scale: float) -> Any:
    return value if scale == 1 else value * T.float32(scale)


def _combine(target: Any, width: int, row: Sequence[Fraction], terms: Sequence[Any]) -> None:
    """target = sum of coefficient * term, without the products by 0 and 1."""
    with T.vectorized(0, width) as lane:
        total: Any = None
        for coefficient, term in zip(row, terms, strict=True):
            if not coefficient:
                continue
            value = term[lane]
            if abs(coefficient) != 1:
                value = value * T.float32(float(abs(coefficient)))
            if total is None:
                total = value if coefficient > 0 else T.float32(0) - value
            else:
                total = total + value if coefficient > 0 else total - value
        T.buffer_store(target, total, [lane])
