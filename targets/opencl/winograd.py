"""Minimal filtering on a GPU: inputs into tiles of transformed ones, products by position, and back.

What a work-item transforms is in registers; see ``targets/winograd.py`` for the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..compiled import Launch
from ..expressions import Expression, operations
from ..winograd import TAPS, Matrix, transforms
from .elementwise import GROUP
from .kernel import ADDRESSES, Kernel, spread
from .text import Code, flat, kind, lanes_for, number

MOST_REGISTERS = 64
"""That the numbers of a tile may take."""


def transform(code: Code, matrix: Matrix, lanes: int, name: str, result: str) -> None:
    """``result`` [rows, rows] = M ``name`` [columns, columns] M^T, of numbers or of vectors."""
    rows, columns = len(matrix), len(matrix[0])
    code.add(f"{kind(lanes)} half_{result}[{rows}][{columns}], {result}[{rows}][{rows}];")
    code.add("#pragma unroll")
    with code.block(f"for (int j = 0; j < {columns}; j++)"):
        for row, entries in enumerate(matrix):
            code.add(
                f"half_{result}[{row}][j] = {_sum(entries, [f'{name}[{i}][j]' for i in range(columns)])};"
            )
    code.add("#pragma unroll")
    with code.block(f"for (int i = 0; i < {rows}; i++)"):
        for row, entries in enumerate(matrix):
            terms = [f"half_{result}[i][{j}]" for j in range(columns)]
            code.add(f"{result}[i][{row}] = {_sum(entries, terms)};")


def _sum(entries: Sequence[Fraction], names: Sequence[str]) -> str:
    factors = [float(entry) for entry in entries]
    terms = [
        name if factor == 1 else f"-{name}" if factor == -1 else f"{number(factor)} * {name}"
        for factor, name in zip(factors, names, strict=True)
        if factor
    ]
    return " + ".join(terms)


def _terms(matrix: Matrix) -> int:
    return sum(bool(entry) for row in matrix for entry in row)


@dataclass(frozen=True)
class Tiled(Kernel):
    """``tiles`` are (images, down, across), each of ``outputs`` squared results; ``size`` rows and columns."""

    outputs: int
    tiles: tuple[int, int, int]
    size: tuple[int, int]
    channels: int

    @property
    def side(self) -> int:
        return self.outputs + TAPS - 1

    @property
    def lanes(self) -> int:
        return lanes_for(self.channels, 1, most=4 if self.side**2 * 4 <= MOST_REGISTERS else 2)

    @property
    def registers(self) -> int:
        return self.lanes * self.side**2 + ADDRESSES

    @property
    def launch(self) -> Launch:
        return spread((self.channels // self.lanes, math.prod(self.tiles)), GROUP)

    def begin(self, code: Code) -> tuple[str, ...]:
        """Which tile, and from which channel on; gives the tile's image, row and column."""
        count = math.prod(self.tiles)
        code.add(f"const int channel = get_global_id(0) * {self.lanes}, tile = get_global_id(1);")
        code.add(f"if (channel >= {self.channels} || tile >= {count}) return;")
        return tuple(code.unflatten("tile", self.tiles, "c"))


@dataclass(frozen=True)
class WinogradInput(Tiled):
    """Operands: x at its strides along (image, row, column), channels side by side; out [n * n, tiles, channels]."""

    before: tuple[int, int]
    x_strides: tuple[int, int, int]

    @property
    def flops(self) -> float:
        matrix = transforms(self.outputs).inputs
        return math.prod(self.tiles) * self.channels * 4.0 * self.side * _terms(matrix)

    def body(self, code: Code) -> None:
        image, down, across = self.begin(code)
        side, wide = self.side, kind(self.lanes)
        code.add(f"{wide} given[{side}][{side}];")
        code.add("#pragma unroll")
        with code.block(f"for (int i = 0; i < {side}; i++)"):
            code.add("#pragma unroll")
            with code.block(f"for (int j = 0; j < {side}; j++)"):
                code.add(f"const int y = {down} * {self.outputs} - {self.before[0]} + i;")
                code.add(f"const int x = {across} * {self.outputs} - {self.before[1]} + j;")
                code.add(f"given[i][j] = {number(0, self.lanes)};")
                inside = f"(uint)y < {self.size[0]}u && (uint)x < {self.size[1]}u"
                source = flat((image, "y", "x"), self.x_strides) + " + channel"
                code.add(f"if ({inside}) given[i][j] = {code.load(0, source, self.lanes)};")
        transform(code, transforms(self.outputs).inputs, self.lanes, "given", "turned")
        plane = math.prod(self.tiles) * self.channels
        with code.block(f"for (int i = 0; i < {side}; i++)"), code.block(f"for (int j = 0; j < {side}; j++)"):
            at = f"(i * {side} + j) * {plane} + tile * {self.channels} + channel"
            code.store(1, "turned[i][j]", at, self.lanes)


@dataclass(frozen=True)
class WinogradOutput(Tiled):
    """Operands: sums [n * n, tiles, channels], out, then what the epilogue loads; strides along (image, row, column,
    channel).
    """

    out_strides: tuple[int, int, int, int]
    epilogue: Expression

    @property
    def flops(self) -> float:
        matrix = transforms(self.outputs).outputs
        sums = 2.0 * (self.side + self.outputs) * _terms(matrix)
        return math.prod(self.tiles) * self.channels * (sums + self.outputs**2 * operations(self.epilogue))

    def body(self, code: Code) -> None:
        image, down, across = self.begin(code)
        side, wide = self.side, kind(self.lanes)
        plane = math.prod(self.tiles) * self.channels
        code.add(f"{wide} given[{side}][{side}];")
        code.add("#pragma unroll")
        with code.block(f"for (int i = 0; i < {side}; i++)"):
            code.add("#pragma unroll")
            with code.block(f"for (int j = 0; j < {side}; j++)"):
                at = f"(i * {side} + j) * {plane} + tile * {self.channels} + channel"
                code.add(f"given[i][j] = {code.load(0, at, self.lanes)};")
        transform(code, transforms(self.outputs).outputs, self.lanes, "given", "turned")
        code.add("#pragma unroll")
        with code.block(f"for (int p = 0; p < {self.outputs**2}; p++)"):
            code.add(f"const int y = {down} * {self.outputs} + p / {self.outputs};")
            code.add(f"const int x = {across} * {self.outputs} + p % {self.outputs};")
            with code.block(f"if (y < {self.size[0]} && x < {self.size[1]})"):
                at = (image, "y", "x", "channel")
                code.add(f"const {wide} value = turned[p / {self.outputs}][p % {self.outputs}];")
                result = code.evaluate(self.epilogue, at, ["value"], self.lanes)
                code.store(1, result, flat(at, self.out_strides), self.lanes, self.out_strides[-1])
