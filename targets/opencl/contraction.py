"""Matrix products and direct convolutions: strided rows times a matrix that lies as it is read.

out[rows..., column] = epilogue( sum over reduce... of A[rows..., reduce...] * B[reduce..., column] )

A work-item has a register tile: a few rows by a vector of columns. Neighbouring work-items have neighbouring columns,
so that they read B side by side and share what they read of A through the cache. Local memory has no part in it: on
mobile GPUs it is ordinary memory (Mali) or costs the work-groups that would hide latency (Adreno).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..compiled import Launch, Texture
from ..expressions import Expression, operations
from .kernel import ADDRESSES, Kernel, spread
from .matrix import Matrix, Opening
from .text import Code, flat, kind

STEPS = 4
"""Reduction steps whose factors of A are loaded as a vector."""

HALF_RATE = 2.0
"""Of half arithmetic over float32's: assumed, as phones' GPUs have two lanes of half in one of float."""


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
    ``dots``                whether B has the int8 factors of four steps in a word, for dot products of those
    ``half_run``            how many products of half floats are added up as such before they are added to float sums
    ``texture``             the image that B is, if it is none of a buffer
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
    dots: bool = False
    half_run: int = 0
    texture: Texture | None = None
    group: int = 0
    batch: tuple[int, int, int] = (1, 0, 0)

    @property
    def launch(self) -> Launch:
        height, lanes = self.tile
        vectors, bands = math.ceil(self.columns / lanes), math.ceil(math.prod(self.rows) / height)
        return spread((vectors, bands, self.batch[0]), self.work_group)

    @property
    def rate(self) -> float:
        return HALF_RATE if self.half_run else 1.0

    @property
    def textures(self) -> tuple[int, ...]:
        return () if self.texture is None else (1,)

    @property
    def flops(self) -> float:
        sums = self.batch[0] * math.prod(self.rows) * self.columns
        return sums * (2.0 * self.parts * math.prod(self.reduce) + operations(self.epilogue))

    @property
    def registers(self) -> int:
        """Sums, and the factors of a few steps; of half floats two are in one."""
        height, lanes = self.tile
        sums, factors = height * lanes * self.parts, (height + lanes) * self._steps
        return sums + ((sums + factors) // 2 if self.half_run else factors) + ADDRESSES

    @property
    def integers(self) -> bool:
        """Whether integers are multiplied with integers, and summed as such."""
        return self.dtypes[0] == "int8" and not self.group

    @property
    def _kind(self) -> str:
        return "int" if self.integers else "float"

    @property
    def _matrix(self) -> Matrix:
        opening: Opening = "words" if self.dots else "integers" if self.integers else "floats"
        opening = "halves" if self.half_run else opening
        lanes = self.tile[1]
        return Matrix(self.dtypes[1], self.parts, self.width, lanes, opening, self.codes, self.texture)

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
            if self.texture is None:
                code.add(f"p1 += product * {math.prod(self.reduce) * self.width};")
        self._starts(code)
        for part in range(self.parts):
            code.add(f"{kind(lanes, self._kind)} sum{part}[{height}];")
        with code.block(f"for (int r = 0; r < {height}; r++)"):
            code.add(" ".join(f"sum{part}[r] = 0;" for part in range(self.parts)))
        by_product = f"product * {math.prod(self.reduce)}"
        code.add(f"int k = {by_product if self.batch[0] > 1 and self.texture is not None else 0};")
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
        height = self.tile[0]
        shift = flat(taps, self.a_reduce[:-1])
        if self.edge:
            shift = self._shift(code, taps)
        if not self.half_run:
            self._loop(code, shift, "0", str(self.reduce[-1]))
            return
        run = min(self.half_run, self.reduce[-1])
        with code.block(f"for (int run = 0; run < {self.reduce[-1]}; run += {run})"):
            for part in range(self.parts):
                code.add(f"H4 halves{part}[{height}];")
                code.add("#pragma unroll")
                code.add(f"for (int r = 0; r < {height}; r++) halves{part}[r] = (H4)(0);")
            self._loop(code, shift, "run", f"min(run + {run}, {self.reduce[-1]})")
            for part in range(self.parts):
                code.add("#pragma unroll")
                code.add(
                    f"for (int r = 0; r < {height}; r++) sum{part}[r] += convert_float4(halves{part}[r]);"
                )

    def _loop(self, code: Code, shift: str, first: str, end: str) -> None:
        """Over steps of the innermost axis."""
        (height, lanes), steps = self.tile, self._steps
        factors, sums = kind(steps, self._kind), kind(lanes, self._kind)
        if self.half_run:
            factors = sums = "H4"
        if self.dots:
            factors = "char4"
        with code.block(f"for (int c = {first}; c < {end}; c += {steps}, k += {steps})"):
            code.add(f"{factors} a[{height}];")
            code.add("#pragma unroll")
            with code.block(f"for (int r = 0; r < {height}; r++)"):
                at = f"start[r] + {shift} + {flat(('c',), self.a_reduce[-1:])}"
                value = self._left(code, at, steps)
                code.add(f"a[r] = inside[r] ? {value} : ({factors})(0);" if self.edge else f"a[r] = {value};")
            for part in range(self.parts):
                self._scale(code, part)
                rows = 1 if self.dots else steps
                for step in range(rows):
                    code.add(f"const {sums} b{part}{step} = {self._right(code, part, step)};")
                code.add("#pragma unroll")
                with code.block(f"for (int r = 0; r < {height}; r++)"):
                    for step in range(rows):
                        self._add(code, part, step)

    def _add(self, code: Code, part: int, step: int) -> None:
        """To the sums of row ``r`` the products of a step, or of the four that lie in a word."""
        lanes = self.tile[1]
        if self.half_run:
            total = f"halves{part}[r]"
            code.add(f"{total} = ADD_H4((H4)(a[r].s{step}), b{part}{step}, {total});")
            return
        if not self.dots:
            factor = f"a[r].s{step}" if self._steps > 1 else "a[r]"
            code.add(f"sum{part}[r] += {factor} * b{part}{step};")
            return
        for lane in range(lanes):
            suffix = f".s{lane}" if lanes > 1 else ""
            total = f"sum{part}[r]{suffix}"
            code.add(f"{total} = dot4(a[r], as_char4(b{part}{step}{suffix}), {total});")

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
        if self.half_run:
            return f"LOAD_H4(p0, {at})"
        if not self.integers:
            return code.load(0, at, lanes)
        if self.dots:
            return f"vload4(0, p0 + {at})"
        return f"convert_{kind(lanes, 'int')}(vload{lanes}(0, p0 + {at}))" if lanes > 1 else f"p0[{at}]"

    def _right(self, code: Code, part: int, step: int) -> str:
        """A vector of B, as it is summed."""
        value = self._matrix.load(code, f"k + {step}" if step else "k", part)
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
