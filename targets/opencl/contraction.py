"""Matrix products and direct convolutions: strided rows times a matrix that lies as it is read.

out[rows..., column] = epilogue( sum over reduce... of A[rows..., reduce...] * B[reduce..., column] )

A work-item has a register tile: a few rows by a vector of columns. Neighbouring work-items have neighbouring columns,
so that they read B side by side and share what they read of A through the cache. Local memory has no part in it: on
mobile GPUs it is ordinary memory (Mali) or costs the work-groups that would hide latency (Adreno).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..compiled import Launch
from ..expressions import Expression
from .elementwise import operations
from .kernel import ADDRESSES, Kernel, spread
from .text import Code, flat, kind

STEPS = 4
"""Reduction steps whose factors of A are loaded as a vector."""


@dataclass(frozen=True)
class Edge:
    """An image without its frame of zeros: along the last of the row axes, its ``size``, the window's ``strides`` and
    ``dilations``, and how many zeros come ``before``. Taps outside of the image count nothing.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]


@dataclass(frozen=True)
class Contraction(Kernel):
    """Operands: A, B, out, [scales, with ``group``], then what the epilogue loads.

    ``rows``, ``reduce``    extents of the row and reduction axes, outermost first
    ``a_rows``, ``a_reduce``  the strides of A along them
    ``columns``             output columns (per part), ``parts`` 2 when the epilogue joins two halves
    ``width``               columns of B (per part), the last of them zeros: B is [*reduce, parts, width]
    ``codes``               int4, where two codes share a byte: of either half of B's columns
    ``group``               how many steps of the reduction share a row of scales of B, if there are such
    ``tile``                rows and columns of a work-item
    """

    rows: tuple[int, ...]
    a_rows: tuple[int, ...]
    reduce: tuple[int, ...]
    a_reduce: tuple[int, ...]
    columns: int
    parts: int
    width: int
    out_strides: tuple[int, ...]
    epilogue: Expression
    tile: tuple[int, int]
    work_group: int
    edge: Edge | None = None
    codes: str | None = None
    group: int = 0
    batch: tuple[int, int, int] = (1, 0, 0)

    @property
    def launch(self) -> Launch:
        height, lanes = self.tile
        vectors, bands = math.ceil(self.columns / lanes), math.ceil(math.prod(self.rows) / height)
        return spread((vectors, bands, self.batch[0]), self.work_group)

    @property
    def flops(self) -> float:
        sums = self.batch[0] * math.prod(self.rows) * self.columns
        return sums * (2.0 * self.parts * math.prod(self.reduce) + operations(self.epilogue))

    @property
    def registers(self) -> int:
        """Sums, and the factors of a few steps."""
        height, lanes = self.tile
        return height * (lanes * self.parts + self._steps) + self._steps * lanes + ADDRESSES

    @property
    def integers(self) -> bool:
        """Whether integers are multiplied with integers, and summed as such."""
        return self.dtypes[0] == "int8" and not self.group

    @property
    def _kind(self) -> str:
        return "int" if self.integers else "float"

    @property
    def _steps(self) -> int:
        together = self.a_reduce[-1] == 1 and self.reduce[-1] % STEPS == 0
        return STEPS if together and (self.group or STEPS) % STEPS == 0 else 1

    def body(self, code: Code) -> None:
        height, lanes = self.tile
        total = math.prod(self.rows)
        code.add(f"const int column = get_global_id(0) * {lanes}, row0 = get_global_id(1) * {height};")
        code.add(f"if (column >= {self.columns} || row0 >= {total}) return;")
        if self.batch[0] > 1:
            code.add("const int product = get_global_id(2);")
            code.add(f"if (product >= {self.batch[0]}) return;")
            code.add(f"p0 += product * {self.batch[1]}, p2 += product * {self.batch[2]};")
            code.add(f"p1 += product * {math.prod(self.reduce) * self.width};")
        self._starts(code)
        for part in range(self.parts):
            code.add(f"{kind(lanes, self._kind)} sum{part}[{height}];")
        with code.block(f"for (int r = 0; r < {height}; r++)"):
            code.add(" ".join(f"sum{part}[r] = 0;" for part in range(self.parts)))
        code.add("int k = 0;")
        self._axis(code, 0, [])
        self._finish(code)

    def _starts(self, code: Code) -> None:
        """Where each row begins in A, and of an image in which row and column of it."""
        height, _ = self.tile
        code.add(f"int start[{height}];")
        spatial = len(self.edge.size) if self.edge else 0
        for axis in range(spatial):
            code.add(f"int at{axis}[{height}];")
        code.add("#pragma unroll")
        with code.block(f"for (int r = 0; r < {height}; r++)"):
            code.add(f"const int row = min(row0 + r, {math.prod(self.rows) - 1});")
            places = code.unflatten("row", self.rows, "c")
            code.add(f"start[r] = {flat(places, self.a_rows)};")
            if self.edge:
                facts = zip(places[-spatial:], self.edge.strides, self.edge.before, strict=True)
                for axis, (place, stride, before) in enumerate(facts):
                    code.add(f"at{axis}[r] = {place} * {stride} - {before};")

    def _axis(self, code: Code, axis: int, taps: list[str]) -> None:
        """The loop over a reduction axis, and within it those over the next."""
        if axis == len(self.reduce) - 1:
            self._depth(code, taps)
            return
        if self.reduce[axis] == 1:
            self._axis(code, axis + 1, [*taps, "0"])
            return
        name = f"k{axis}"
        with code.block(f"for (int {name} = 0; {name} < {self.reduce[axis]}; {name}++)"):
            self._axis(code, axis + 1, [*taps, name])

    def _depth(self, code: Code, taps: list[str]) -> None:
        """The innermost axis, a few steps at a time."""
        height, lanes = self.tile
        steps = self._steps
        shift = flat(taps, self.a_reduce[:-1])
        if self.edge:
            shift = self._shift(code, taps)
        loop = f"for (int c = 0; c < {self.reduce[-1]}; c += {steps}, k += {steps})"
        with code.block(loop):
            code.add(f"{kind(steps, self._kind)} a[{height}];")
            code.add("#pragma unroll")
            with code.block(f"for (int r = 0; r < {height}; r++)"):
                at = f"start[r] + {shift} + {flat(('c',), self.a_reduce[-1:])}"
                value = self._left(code, at, steps)
                code.add(f"a[r] = inside[r] ? {value} : 0;" if self.edge else f"a[r] = {value};")
            for part in range(self.parts):
                self._scale(code, part)
                for step in range(steps):
                    code.add(
                        f"const {kind(lanes, self._kind)} b{part}{step} = {self._right(code, part, step)};"
                    )
                code.add("#pragma unroll")
                with code.block(f"for (int r = 0; r < {height}; r++)"):
                    for step in range(steps):
                        factor = f"a[r].s{step}" if steps > 1 else "a[r]"
                        code.add(f"sum{part}[r] += {factor} * b{part}{step};")

    def _shift(self, code: Code, taps: list[str]) -> str:
        """How far taps are from a row's start, and which rows have them inside of the image."""
        assert self.edge is not None
        height, _ = self.tile
        steps = [
            (tap, dilation, before, size)
            for tap, dilation, before, size in zip(
                taps, self.edge.dilations, self.edge.before, self.edge.size, strict=True
            )
        ]
        code.add(f"int inside[{height}];")
        code.add("#pragma unroll")
        with code.block(f"for (int r = 0; r < {height}; r++)"):
            tests = [
                f"(uint)(at{axis}[r] + {tap} * {dilation}) < {size}u"
                for axis, (tap, dilation, _, size) in enumerate(steps)
            ]
            code.add(f"inside[r] = {' && '.join(tests)};")
        # The zeros before the image are none of its elements.
        back = sum(
            before * stride // dilation
            for (_, dilation, before, _), stride in zip(steps, self.a_reduce[:-1], strict=True)
        )
        return f"{flat(taps, self.a_reduce[:-1])} - {back}"

    def _left(self, code: Code, at: str, lanes: int) -> str:
        if not self.integers:
            return code.load(0, at, lanes)
        return f"convert_{kind(lanes, 'int')}(vload{lanes}(0, p0 + {at}))" if lanes > 1 else f"p0[{at}]"

    def _right(self, code: Code, part: int, step: int) -> str:
        """A vector of B, as it is summed."""
        _, lanes = self.tile
        row = f"(k + {step})" if step else "k"
        if self.codes == "int4":
            half = self.parts * self.width // 2
            place = f"column + {part * self.width}" if part else "column"
            word = f"p1 + {row} * {half} + ({place}) % {half}"
            bytes_ = f"vload{lanes}(0, {word})" if lanes > 1 else f"*({word})"
            opened = f"convert_{kind(lanes, 'int')}({bytes_}) << (({place}) < {half} ? 28 : 24) >> 28"
            value = opened if self.integers else f"convert_{kind(lanes)}({opened})"
        else:
            at = f"{row} * {self.parts * self.width} + column" + (f" + {part * self.width}" if part else "")
            if self.integers:
                value = (
                    f"convert_{kind(lanes, 'int')}(vload{lanes}(0, p1 + {at}))" if lanes > 1 else f"p1[{at}]"
                )
            else:
                value = code.load(1, at, lanes)
        return f"{value} * scale{part}" if self.group else value

    def _scale(self, code: Code, part: int) -> None:
        if self.group:
            _, lanes = self.tile
            at = f"k / {self.group} * {self.parts * self.width} + column + {part * self.width}"
            code.add(f"const {kind(lanes)} scale{part} = {code.load(3, at, lanes)};")

    def _finish(self, code: Code) -> None:
        height, lanes = self.tile
        code.add("#pragma unroll")
        with code.block(f"for (int r = 0; r < {height}; r++)"):
            code.add("const int row = row0 + r;")
            with code.block(f"if (row < {math.prod(self.rows)})"):
                at = [*code.unflatten("row", self.rows, "c"), "column"]
                values = [f"value{part}" for part in range(self.parts)]
                for part, value in enumerate(values):
                    whole = f"sum{part}[r]"
                    wide = f"convert_{kind(lanes)}({whole})" if self.integers else whole
                    code.add(f"const {kind(lanes)} {value} = {wide};")
                result = code.evaluate(self.epilogue, at, values, lanes)
                code.store(2, result, flat(at, self.out_strides), lanes, self.out_strides[-1])
