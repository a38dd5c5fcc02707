"""Matrix products and direct convolutions on a matrix unit: rows of narrow numbers times packed tiles.

The sums are those of ``contraction.py``. A register of the unit (Intel's AMX, Architecture Instruction Set Extensions
Programming Reference, chapter 3) holds 16 rows of 64 bytes; one instruction adds 16 x 16 sums of 32 products of
bfloat16 numbers in float32, or of 64 products of int8 numbers in int32, exactly. Two tiles of rows against two of
columns keep four sums in registers, so that each loaded tile is used twice.

What tiles sum goes through memory to the vector unit, which does the epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from ...ir.formats import format_called
from ..packing import TILE_ROWS, raised_by
from .contraction import SumsKernel, either
from .kernel import Bfloat16, evaluate, flat, lane_chunks, local, raw, store, unflatten
from .register_tiles import panel_starts
from .unpack import codes_together, items_of, numbers, raised_bytes

WIDTH = 2 * TILE_ROWS
"""Columns of a panel."""

ROW_BYTES = 64
"""Of a register, and of a cache line."""

SUMS, LEFT, RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)
"""Registers."""


@dataclass(frozen=True)
class Format:
    """How the unit multiplies numbers of which ``together`` lie in 32 bits."""

    instruction: str
    together: int
    sums_dtype: str

    @property
    def step(self) -> int:
        """Products that one instruction adds to a sum; numbers of a row."""
        return self.together * TILE_ROWS

    @property
    def item_bytes(self) -> int:
        return 4 // self.together


FORMATS = {"bfloat16": Format("tdpbf16ps", 2, "float32"), "int8": Format("tdpbssd", 4, "int32")}

STEP = FORMATS["bfloat16"].step


def unit(name: str, *arguments: Any) -> None:
    """An instruction of the matrix unit."""
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *arguments))


def configure(rows: Sequence[int]) -> None:
    """Say how many rows of 64 bytes each register has. Costs as much as ten tile loads or so."""
    settings = T.alloc_buffer([ROW_BYTES], "uint8", scope="global")
    values = [0] * ROW_BYTES
    values[0] = 1  # the only palette that there is
    for register, count in enumerate(rows):
        values[16 + 2 * register], values[48 + register] = ROW_BYTES, count
    for place, value in enumerate(values):
        T.buffer_store(settings, T.uint8(value), [place])
    unit("ldtilecfg", T.address_of(settings[0]))


def load_tile(register: int, words: Any, at: Any, stride_bytes: Any) -> None:
    unit("tileloadd64", T.uint8(register), T.address_of(words[at]), T.int64(stride_bytes))


def store_tile(register: int, words: Any, at: Any, stride_bytes: int) -> None:
    unit("tilestored64", T.uint8(register), T.address_of(words[at]), T.int64(stride_bytes))


def store_vector(operand: Any, values: Any, width: int, at: Any) -> None:
    """Write a local array to consecutive elements, in the format that they are stored in."""
    if isinstance(operand, Bfloat16) and width == TILE_ROWS:
        rounded = T.call_llvm_pure_intrin(
            "bfloat16x16", "llvm.x86.avx512bf16.cvtneps2bf16.512", values[T.Ramp(0, 1, TILE_ROWS)]
        )
        T.buffer_store(operand.words, T.reinterpret("uint16x16", rounded), [T.Ramp(at, 1, TILE_ROWS)])
        return
    with T.vectorized(0, width) as lane:
        store(operand, values[lane], at + lane)


def prefetch(words: Any, at: Any) -> None:
    """Bring what will be read into the second-level cache. Nothing happens where there is no such memory."""
    T.evaluate(
        T.call_llvm_intrin(
            "void", "llvm.prefetch", T.address_of(words[at]), T.int32(0), T.int32(2), T.int32(1)
        )
    )


@dataclass(frozen=True)
class Slice:
    """Tiles of a slice of a panel, from ``start`` on, and in the packed panels what comes after it."""

    items: Any
    start: Any
    packed: Any
    after: Any


def _bfloat16_row(codes: str, items: Any, at: Any, place: int) -> Any:
    """32 numbers of bfloat16, as words, from as many codes."""
    halves = [
        numbers(codes, T.Cast("int32x16", items[T.Ramp(at + first, 1, 16)]), place, 16) for first in (16, 0)
    ]
    rounded = T.call_llvm_pure_intrin("bfloat16x32", "llvm.x86.avx512bf16.cvtne2ps2bf16.512", *halves)
    return T.reinterpret("uint16x32", rounded)


def _int8_row(codes: str, items: Any, at: Any, place: int) -> Any:
    """64 numbers of int8: those of as many codes, raised."""
    word = T.reinterpret("int32x16", items[T.Ramp(at, 1, ROW_BYTES)])
    return T.reinterpret("int8x64", raised_bytes(codes, word, place, 16))


OPENED = {"bfloat16": _bfloat16_row, "int8": _int8_row}
"""How a row of a tile in one of ``FORMATS`` is made from codes."""


@dataclass(frozen=True)
class TileContraction(SumsKernel):
    """Operands: A in one of ``FORMATS``, B in tile panels, out, scratch for sums, [factors, with ``codes``], then what
    the epilogue loads.

    As ``Contraction``, but that the innermost reduction axis counts in steps of indices which lie next to each other in
    A, as many as a register's row has room for. ``tile_rows`` rows of A, evenly spaced, are a tile; tiles are taken in
    pairs. A task has the rows of one of ``blocks`` blocks and the panels of one of ``groups`` groups. Where B are codes
    of another format, a slice of a panel is opened into the task's room before the rows of its block pass by.
    """

    tile_rows: int
    groups: int
    lanes: int
    codes: str | None = None

    @property
    def format(self) -> Format:
        return FORMATS[self.dtypes[0]]

    @property
    def tiles(self) -> int:
        return math.prod(self.rows[:-1]) * math.ceil(self.rows[-1] / self.tile_rows)

    @property
    def pairs(self) -> int:
        return math.ceil(self.tiles / 2)

    @property
    def panels(self) -> int:
        return len(panel_starts(self.columns, WIDTH // self.parts))

    @property
    def scratch_floats(self) -> int:
        """Of each task room for a pair's sums, or for all of its pairs' between two slices of the reduction."""
        return self.blocks * self.groups * self._task_floats

    @property
    def opened_factors(self) -> int:
        """Room for each task's slice of a panel."""
        return self.blocks * self.groups * self._slice_depth * self._step_factors if self.codes else 0

    @property
    def _step_factors(self) -> int:
        return WIDTH * self.format.step

    @property
    def _step_items(self) -> int:
        """Of a panel."""
        return items_of(self.codes, self._step_factors)

    @property
    def _block_pairs(self) -> int:
        return math.ceil(self.pairs / self.blocks)

    @property
    def _pair_floats(self) -> int:
        return 2 * self.tile_rows * WIDTH

    @property
    def _task_floats(self) -> int:
        return (self._block_pairs if self.splits else 1) * self._pair_floats

    def body(self, operands: Sequence[Any]) -> None:
        per_group = math.ceil(self.panels / self.groups)
        with T.parallel(0, self.blocks * self.groups) as task:
            block, group = task // self.groups, task % self.groups
            configure([self.tile_rows] * 6 + [TILE_ROWS] * 2)
            with T.serial(0, T.min(per_group, self.panels - group * per_group)) as place:
                self._panel(operands, group * per_group + place, block, task)
            unit("tilerelease")

    def _panel(self, operands: Sequence[Any], panel: Any, block: Any, task: Any) -> None:
        """A slice of the panel stays in the first-level cache while the rows of the block pass by."""
        first, scratch = block * self._block_pairs, task * self._task_floats
        right, slices = raw(operands[1]), math.prod(self.reduce[: self.splits])
        with T.serial(0, slices) as slice_index:
            at = (panel * slices + slice_index) * (self._slice_depth * self._step_items)
            piece = Slice(right, at, right, at + self._slice_depth * self._step_items)
            if self.codes is not None:
                piece = self._open(piece, raw(operands[4]), task * (self._slice_depth * self._step_factors))
            with T.serial(0, T.min(self._block_pairs, self.pairs - first)) as step:
                room = scratch + step * self._pair_floats if self.splits else scratch
                self._pair(operands, piece, panel, first + step, step, slice_index, room)

    def _open(self, piece: Slice, room: Any, start: Any) -> Slice:
        """The same in tiles of factors, from ``start`` on."""
        assert self.codes is not None
        line = ROW_BYTES // self.format.item_bytes
        halves = codes_together(self.codes)
        with T.serial(0, self._slice_depth) as step:
            with T.serial(0, 2 // halves * TILE_ROWS) as row:
                read = piece.start + step * self._step_items + row * line
                for half in range(halves):
                    at = start + step * self._step_factors + (half * TILE_ROWS + row) * line
                    factors = OPENED[self.dtypes[0]](self.codes, piece.items, read, half)
                    T.buffer_store(room, factors, [T.Ramp(at, 1, line)])
        return replace(piece, items=room, start=start)

    def _pair(
        self,
        operands: Sequence[Any],
        right: Slice,
        panel: Any,
        pair: Any,
        place: Any,
        slice_index: Any,
        scratch: Any,
    ) -> None:
        slices = math.prod(self.reduce[: self.splits])
        # The last pair of an odd number does its only tile twice.
        tiles = [self._coordinates(T.min(2 * pair + side, self.tiles - 1)) for side in range(2)]

        def zero() -> None:
            for register in SUMS:
                unit("tilezero", T.uint8(register))

        def moved(move: Callable[[int, Any, Any, int], None]) -> None:
            for register in SUMS:
                row, column = register // 2 * self.tile_rows, register % 2 * TILE_ROWS
                move(register, operands[3], scratch + row * WIDTH + column, 4 * WIDTH)

        def finish() -> None:
            moved(store_tile)
            self._store(operands, panel, tiles, scratch)

        if slices == 1:
            zero()
            self._accumulate(raw(operands[0]), right, tiles, place, slice_index)
            finish()
            return
        either(slice_index == 0, zero, lambda: moved(load_tile))
        self._accumulate(raw(operands[0]), right, tiles, place, slice_index)
        either(slice_index == slices - 1, finish, lambda: moved(store_tile))

    def _coordinates(self, tile: Any) -> tuple[list[Any], Any]:
        """Coordinates on the outer row axes, and the first row of the tile on the innermost."""
        bands = math.ceil(self.rows[-1] / self.tile_rows)
        outer = unflatten(tile // bands, self.rows[:-1])
        return outer, T.min(tile % bands * self.tile_rows, self.rows[-1] - self.tile_rows)

    def _accumulate(self, a: Any, right: Slice, tiles: Any, place: Any, slice_index: Any) -> None:
        step, item_bytes = self.format.step, self.format.item_bytes
        split = flat(unflatten(slice_index, self.reduce[: self.splits]), self.a_reduce[: self.splits])
        starts = [flat([*outer, first], self.a_rows) + split for outer, first in tiles]
        inner, strides = self.reduce[self.splits :], self.a_reduce[self.splits :]
        # What comes after this slice, of which each pair of the block fetches its share.
        line = ROW_BYTES // (item_bytes if self.codes is None else 1)
        lines = math.ceil(self._step_items / line / self._block_pairs)
        after = right.after + place * (self._slice_depth * lines * line)

        def loops(axis: int, position: Any, at: Any) -> None:
            if axis < len(inner):
                with T.serial(0, inner[axis]) as k:
                    loops(axis + 1, position * inner[axis] + k, at + k * strides[axis])
                return
            for register, start in zip(LEFT, starts, strict=True):
                load_tile(register, a, start + at, item_bytes * self.a_rows[-1])
            for side, register in enumerate(RIGHT):
                at_tile = right.start + (position * 2 + side) * (TILE_ROWS * step)
                load_tile(register, right.items, at_tile, ROW_BYTES)
            for register in SUMS:
                pair = LEFT[register // 2], RIGHT[register % 2]
                unit(self.format.instruction, T.uint8(register), *(T.uint8(one) for one in pair))
            for index in range(lines):
                prefetch(right.packed, after + (position * lines + index) * line)

        loops(0, T.int32(0), T.int32(0))

    def _store(self, operands: Sequence[Any], panel: Any, tiles: Any, scratch: Any) -> None:
        part_width = WIDTH // self.parts
        first_column = T.min(panel * part_width, max(self.columns - part_width, 0))
        for side, (outer, first) in enumerate(tiles):
            with T.serial(0, self.tile_rows) as row:
                sums = scratch + (side * self.tile_rows + row) * WIDTH
                for start, width in lane_chunks(min(part_width, self.columns), self.lanes):
                    result = local(width)
                    at = [*outer, first + row, first_column + start]
                    with T.vectorized(0, width) as lane:
                        values = [
                            self._whole(operands[3][sums + part * part_width + start + lane])
                            for part in range(self.parts)
                        ]
                        place = [*at[:-1], at[-1] + lane]
                        T.buffer_store(result, evaluate(self.epilogue, operands, place, values), [lane])
                    store_vector(operands[2], result, width, flat(at, self.out_strides))

    def _whole(self, total: Any) -> Any:
        """A sum, of products as they are."""
        if self.format.sums_dtype != "int32" or self.codes is None:
            return total
        return T.shift_right(total, T.int32(raised_by(format_called(self.codes))))
