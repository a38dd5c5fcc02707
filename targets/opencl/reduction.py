"""Sums, products and extremes over some axes of an expression: what no template of its own computes."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass

from ..compiled import Launch
from ..expressions import Expression, loads_of, operations
from .kernel import Kernel, spread
from .text import Code, flat, kind, lanes_for, number

GROUP = 64

JOINS = {
    "Add": (0.0, "{0} + {1}"),
    "Mul": (1.0, "{0} * {1}"),
    "Max": (-math.inf, "fmax({0}, {1})"),
    "Min": (math.inf, "fmin({0}, {1})"),
}
"""What a reduction begins with, and how it goes on."""


@dataclass(frozen=True)
class Reduction(Kernel):
    """Operand 0, out, is ``epilogue`` of what ``operator`` makes of each of ``terms`` over the axes ``reduce``.

    Loads of the terms have strides along (*reduce, *extents), those of the epilogue along ``extents``. A work-item has
    a vector of the innermost axis.
    """

    extents: tuple[int, ...]
    out_strides: tuple[int, ...]
    reduce: tuple[int, ...]
    operator: str
    terms: tuple[Expression, ...]
    epilogue: Expression

    @property
    def lanes(self) -> int:
        along = [load.strides[-1] for one in (*self.terms, self.epilogue) for load in loads_of(one)]
        return lanes_for(self.extents[-1], self.out_strides[-1], *along)

    @property
    def launch(self) -> Launch:
        return spread((self.extents[-1] // self.lanes, math.prod(self.extents[:-1])), GROUP)

    @property
    def flops(self) -> float:
        each = sum(1 + operations(term) for term in self.terms)
        return math.prod(self.extents) * (math.prod(self.reduce) * each + operations(self.epilogue))

    def body(self, code: Code) -> None:
        inner, outer = self.extents[-1] // self.lanes, math.prod(self.extents[:-1])
        code.add("const int vector = get_global_id(0), rest = get_global_id(1);")
        code.add(f"if (vector >= {inner} || rest >= {outer}) return;")
        at = code.unflatten("rest", self.extents[:-1], "c")
        code.add(f"const int last = vector * {self.lanes};")
        at.append("last")
        start, join = JOINS[self.operator]
        sums = [f"sum{part}" for part in range(len(self.terms))]
        for one in sums:
            code.add(f"{kind(self.lanes)} {one} = {number(start, self.lanes)};")
        with ExitStack() as loops:
            inside = [f"r{axis}" for axis in range(len(self.reduce))]
            for name, size in zip(inside, self.reduce, strict=True):
                loops.enter_context(code.block(f"for (int {name} = 0; {name} < {size}; ++{name})"))
            for one, term in zip(sums, self.terms, strict=True):
                value = code.evaluate(term, [*inside, *at], (), self.lanes)
                code.add(f"{one} = {join.format(one, value)};")
        result = code.evaluate(self.epilogue, at, sums, self.lanes)
        code.store(0, result, flat(at, self.out_strides), self.lanes, self.out_strides[-1])
