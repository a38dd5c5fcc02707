"""3 x 3 convolutions of stride 1 by minimal filtering (see targets/winograd.py), in two kernels.

The first transforms the input: n x n positions, each a matrix [tiles, channels]. The second multiplies each by the
transformed filters of its position, panel by panel as ``contraction.py`` does, and transforms the sums of a block of
tiles back while they are in the cache, where the epilogue meets them.
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
from .contraction import Tile, panel_starts
from .kernel import Kernel, evaluate, factors, fill, flat, lane_chunks, local, store, unflatten


@dataclass(frozen=True)
class WinogradInput(Kernel):
    """Operands: x, its transform [n * n, images * down * across, channels].

    ``tiles`` are (images, down, across), of ``outputs`` x ``outputs`` results each; ``size`` is rows and columns of x,
    ``before`` those of zeros above and left of it; ``x_strides`` are of (image, row, column), channels contiguous.
    """

    outputs: int
    tiles: tuple[int, int, int]
    size: tuple[int, int]
    before: tuple[int, int]
    channels: int
    x_strides: tuple[int, int, int]
    lanes: int

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
                    T.buffer_store(out, whole[lane], [at + lane])

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
class WinogradProduct(Kernel):
    """Operands: transformed input, filters in panels [panels, n * n, channels, width], out, scratch, then what the
    epilogue loads.

    Coordinates of the epilogue are (image, row, column, output channel). ``size`` is rows and columns of the result;
    ``blocks`` divides the tiles into runs that a task transforms back together.
    """

    outputs: int
    tiles: tuple[int, int, int]
    size: tuple[int, int]
    channels: int
    columns: int
    tile: Tile
    out_strides: tuple[int, int, int, int]
    epilogue: Expression
    blocks: int

    @property
    def panels(self) -> int:
        return len(panel_starts(self.columns, self.tile.width))

    @property
    def bands(self) -> int:
        """Register tiles along all tiles; the last overlaps its neighbour."""
        return math.ceil(math.prod(self.tiles) / self.tile.rows)

    @property
    def positions(self) -> int:
        return (self.outputs + TAPS - 1) ** 2

    @property
    def _bands_per_block(self) -> int:
        return math.ceil(self.bands / self.blocks)

    @property
    def scratch_floats(self) -> int:
        """Sums of all positions, for each task."""
        task = self._bands_per_block * self.positions * self.tile.rows * self.tile.width
        return self.panels * self.blocks * task

    def body(self, operands: Sequence[Any]) -> None:
        per_block, tile = self._bands_per_block, self.tile
        area = tile.rows * tile.width
        with T.parallel(0, self.panels * self.blocks) as task:
            panel, block = task // self.blocks, task % self.blocks
            count = T.min(per_block, self.bands - block * per_block)
            sums = task * (per_block * self.positions * area)
            with T.serial(0, self.positions) as position:
                with T.serial(0, count) as band:
                    first = self._first(block * per_block + band)
                    at = sums + (band * self.positions + position) * area
                    self._multiply(operands, panel, position, first, at)
            with T.serial(0, count) as band:
                first = self._first(block * per_block + band)
                with T.serial(0, tile.rows) as row:
                    at = sums + band * (self.positions * area) + row * tile.width
                    self._finish(operands, panel, first + row, at)

    def _first(self, band: Any) -> Any:
        return T.min(band * self.tile.rows, max(math.prod(self.tiles) - self.tile.rows, 0))

    def _multiply(self, operands: Sequence[Any], panel: Any, position: Any, first: Any, at: Any) -> None:
        """A register tile: sums over the channels of one position, into the scratch."""
        data, filters, _, scratch = operands[:4]
        tile, count = self.tile, math.prod(self.tiles)
        chunks = lane_chunks(tile.width, tile.lanes)
        totals = [[local(width) for _, width in chunks] for _ in range(tile.rows)]
        for row in totals:
            for total, (_, width) in zip(row, chunks, strict=True):
                fill(total, width, 0.0)
        unroll = next(step for step in (4, 2, 1) if self.channels % step == 0)
        left = (position * count + first) * self.channels
        right = (panel * self.positions + position) * (self.channels * tile.width)
        with T.serial(0, self.channels // unroll) as step:
            starts = [left + row * self.channels + step * unroll for row in range(tile.rows)]
            values = factors(data, starts, 1, unroll, tile.by_lane)
            for inner in range(unroll):
                channel = step * unroll + inner
                for row in range(tile.rows):
                    value = values[row][inner]
                    for total, (start, width) in zip(totals[row], chunks, strict=True):
                        with T.vectorized(0, width) as lane:
                            weight = filters[right + channel * tile.width + start + lane]
                            T.buffer_store(total, total[lane] + value * weight, [lane])
        for row in range(tile.rows):
            for total, (start, width) in zip(totals[row], chunks, strict=True):
                with T.vectorized(0, width) as lane:
                    T.buffer_store(scratch, total[lane], [at + row * tile.width + start + lane])

    def _finish(self, operands: Sequence[Any], panel: Any, index: Any, at: Any) -> None:
        """The sums of a tile and a panel of columns, transformed back and stored through the epilogue."""
        scratch, tile = operands[3], self.tile
        side = self.outputs + TAPS - 1
        area = tile.rows * tile.width
        matrix = transforms(self.outputs).outputs
        image, down, across = unflatten(index, self.tiles)
        first_column = T.min(panel * tile.width, max(self.columns - tile.width, 0))
        kept = min(tile.width, self.columns)
        for start, width in lane_chunks(kept, tile.lanes):
            half = [[local(width) for _ in range(side)] for _ in range(self.outputs)]
            for column in range(side):
                taken = [local(width) for _ in range(side)]
                for row in range(side):
                    place = at + (row * side + column) * area + start
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(taken[row], scratch[place + lane], [lane])
                for row in range(self.outputs):
                    _combine(half[row][column], width, matrix[row], taken)
            for row in range(self.outputs):
                for column in range(self.outputs):
                    result = local(width)
                    _combine(result, width, matrix[column], half[row])
                    y, x = down * self.outputs + row, across * self.outputs + column
                    at_pixel = [image, y, x]
                    self._store(operands, at_pixel, first_column + start, width, result, (row, column))

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
                value = evaluate(self.epilogue, operands, at, [result[lane]])
                store(operands[2], value, flat(at, self.out_strides))

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
