"""Elementwise groups, copies, frames of zeros and rows of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..compiled import Launch
from ..expressions import Expression, loads_of, operations
from ..framing import Framing
from .kernel import Kernel, spread
from .text import Code, flat, lanes_for

GROUP = 64


@dataclass(frozen=True)
class Map(Kernel):
    """Operand 0 is the output; the expression loads the others. A work-item has a vector of the innermost axis."""

    extents: tuple[int, ...]
    out_strides: tuple[int, ...]
    expression: Expression

    @property
    def lanes(self) -> int:
        along = [load.strides[-1] for load in loads_of(self.expression)]
        return lanes_for(self.extents[-1], self.out_strides[-1], *along)

    @property
    def launch(self) -> Launch:
        return spread((self.extents[-1] // self.lanes, math.prod(self.extents[:-1])), GROUP)

    @property
    def flops(self) -> float:
        return math.prod(self.extents) * operations(self.expression)

    def body(self, code: Code) -> None:
        inner, outer = self.extents[-1] // self.lanes, math.prod(self.extents[:-1])
        code.add("const int vector = get_global_id(0), rest = get_global_id(1);")
        code.add(f"if (vector >= {inner} || rest >= {outer}) return;")
        at = code.unflatten("rest", self.extents[:-1], "c")
        code.add(f"const int last = vector * {self.lanes};")
        at.append("last")
        result = code.evaluate(self.expression, at, (), self.lanes)
        code.store(0, result, flat(at, self.out_strides), self.lanes, self.out_strides[-1])


@dataclass(frozen=True)
class Pad(Framing, Kernel):
    """Operand 0: out, dense; operand 1: the images, framed by zeros in out."""

    @property
    def lanes(self) -> int:
        return lanes_for(self.channels, self.in_strides[3])

    @property
    def launch(self) -> Launch:
        return spread((self.channels // self.lanes, self.planes * self.height * self.width), GROUP)

    @property
    def flops(self) -> float:
        return 0.0

    def body(self, code: Code) -> None:
        count = self.planes * self.height * self.width
        code.add("const int vector = get_global_id(0), place = get_global_id(1);")
        code.add(f"if (vector >= {self.channels // self.lanes} || place >= {count}) return;")
        plane, row, column = code.unflatten("place", (self.planes, self.height, self.width), "c")
        (rows, columns), (top, left) = self.image, self.before
        code.add(f"const int y = {row} - {top}, x = {column} - {left}, channel = vector * {self.lanes};")
        code.add(f"const int inside = y >= 0 && y < {rows} && x >= 0 && x < {columns};")
        source = flat((plane, "y", "x", "channel"), self.in_strides)
        name = "float" if self.lanes == 1 else f"float{self.lanes}"
        code.add(f"{name} value = 0.0f;")
        code.add(f"if (inside) value = {code.load(1, source, self.lanes, self.in_strides[3])};")
        code.store(0, "value", f"place * {self.channels} + channel", self.lanes)


@dataclass(frozen=True)
class Gather(Kernel):
    """Operands: out, dense [count, columns]; table; indices, dense [count], held to the table's rows."""

    count: int
    rows: int
    columns: int
    table_strides: tuple[int, int]

    @property
    def launch(self) -> Launch:
        return spread((self.columns, self.count), GROUP)

    @property
    def flops(self) -> float:
        return 0.0

    def body(self, code: Code) -> None:
        code.add("const int column = get_global_id(0), place = get_global_id(1);")
        code.add(f"if (column >= {self.columns} || place >= {self.count}) return;")
        code.add("const long given = (long)p2[place];")
        code.add(f"const long counted = given < 0 ? given + {self.rows} : given;")
        code.add(f"const int row = (int)clamp(counted, (long)0, (long){self.rows - 1});")
        code.add(f"const float value = {code.load(1, flat(('row', 'column'), self.table_strides))};")
        code.store(0, "value", f"place * {self.columns} + column")
