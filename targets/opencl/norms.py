"""Normalisations and softmax, each in one kernel: a work-group has what shares its statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..compiled import Launch
from ..expressions import Expression, operations
from .kernel import Kernel, group_size
from .text import Code, flat, kind, lanes_for, largest_of, sum_of

GROUP = 128


@dataclass(frozen=True)
class GroupNorm(Kernel):
    """Operands: x, scale [C], bias [C], out, then what the epilogue loads; strides along (image, *pixels, channel).

    A work-group has one group of channels of one image, and reads it three times: for the mean, for the squares of
    differences from it, which large means do not spoil, and to scale it. What it has read stays in the caches.
    """

    images: int
    pixels: tuple[int, ...]
    channels: int
    groups: int
    epsilon: float
    x_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    epilogue: Expression

    @property
    def lanes(self) -> int:
        return lanes_for(self.channels // self.groups, self.x_strides[-1])

    @property
    def _vectors(self) -> int:
        """Of a pixel's channels in the group."""
        return self.channels // self.groups // self.lanes

    @property
    def launch(self) -> Launch:
        size = group_size(math.prod(self.pixels) * self._vectors, GROUP)
        return Launch((size, self.groups, self.images), (size, 1, 1))

    @property
    def flops(self) -> float:
        return self.images * math.prod(self.pixels) * self.channels * (7.0 + operations(self.epilogue))

    def body(self, code: Code) -> None:
        size, lanes = self.launch.group[0], self.lanes
        own = self.channels // self.groups
        count = math.prod(self.pixels) * own
        code.add(f"__local float room[{size}];")
        code.add("const int item = get_local_id(0), image = get_global_id(2);")
        code.add(f"const int first = get_global_id(1) * {own};")
        self._pass(code, "sum", "sum += x;")
        code.reduce(lambda a, b: f"{a} + {b}", size, "room", sum_of(lanes, "sum"), "total")
        code.add(f"const float mean = total / {float(count)}f;")
        self._pass(code, "squares", "squares += (x - mean) * (x - mean);")
        code.reduce(lambda a, b: f"{a} + {b}", size, "room", sum_of(lanes, "squares"), "off")
        code.add(f"const float gain = 1.0f / sqrt(off / {float(count)}f + {self.epsilon!r}f);")
        with self._elements(code) as at:
            code.add(f"const {kind(lanes)} scale = {code.load(1, at[-1], lanes)};")
            code.add(f"const {kind(lanes)} bias = {code.load(2, at[-1], lanes)};")
            code.add(f"const {kind(lanes)} value = (x - mean) * gain * scale + bias;")
            result = code.evaluate(self.epilogue, at, ["value"], lanes)
            code.store(3, result, flat(at, self.out_strides), lanes, self.out_strides[-1])

    def _pass(self, code: Code, name: str, step: str) -> None:
        code.add(f"{kind(self.lanes)} {name} = 0.0f;")
        with self._elements(code):
            code.add(step)

    @contextmanager
    def _elements(self, code: Code) -> Iterator[list[str]]:
        """A loop of a work-item over its vectors of the group; gives their coordinates, with ``x`` read."""
        total = math.prod(self.pixels) * self._vectors
        with code.block(f"for (int at = item; at < {total}; at += {self.launch.group[0]})"):
            code.add(f"const int pixel = at / {self._vectors};")
            coordinates = ["image", *code.unflatten("pixel", self.pixels, "c"), "channel"]
            code.add(f"const int channel = first + at % {self._vectors} * {self.lanes};")
            source = flat(coordinates[:-1], self.x_strides[:-1]) + " + channel"
            code.add(f"const {kind(self.lanes)} x = {code.load(0, source, self.lanes)};")
            yield coordinates


@dataclass(frozen=True)
class RowNorm(Kernel):
    """Operand 0: x, operand 1: out; coordinates are (*rows, column). A work-group has a row.

    With ``epsilon`` zero mean and unit variance, whose scale and bias are the epilogue's; without, softmax.
    """

    rows: tuple[int, ...]
    columns: int
    x_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    epilogue: Expression
    epsilon: float | None

    @property
    def lanes(self) -> int:
        return lanes_for(self.columns, self.x_strides[-1])

    @property
    def launch(self) -> Launch:
        size = group_size(self.columns // self.lanes, GROUP)
        return Launch((size, math.prod(self.rows), 1), (size, 1, 1))

    @property
    def flops(self) -> float:
        return math.prod(self.rows) * self.columns * (8.0 + operations(self.epilogue))

    def body(self, code: Code) -> None:
        size, lanes = self.launch.group[0], self.lanes
        code.add(f"__local float room[{size}];")
        code.add("const int item = get_local_id(0), row = get_global_id(1);")
        at = [*code.unflatten("row", self.rows, "c"), "column"]
        wide = kind(lanes)

        def fold(start: str, step: str) -> None:
            code.add(f"{wide} part = {start};")
            with columns():
                code.add(step)

        def columns():
            return code.block(
                f"for (int column = item * {lanes}; column < {self.columns}; column += {size * lanes})"
            )

        x = code.load(0, flat(at, self.x_strides), lanes, self.x_strides[-1])
        if self.epsilon is None:
            with code.block(""):
                fold("-INFINITY", f"part = fmax(part, {x});")
                code.reduce(lambda a, b: f"fmax({a}, {b})", size, "room", largest_of(lanes, "part"), "found")
            code.add("const float top = room[0];")
            step, finish = f"part += exp({x} - top);", f"exp({x} - top) / total"
        else:
            with code.block(""):
                fold("0.0f", f"part += {x};")
                code.reduce(lambda a, b: f"{a} + {b}", size, "room", sum_of(lanes, "part"), "found")
            code.add(f"const float mean = room[0] / {float(self.columns)}f;")
            step = f"part += ({x} - mean) * ({x} - mean);"
            finish = f"({x} - mean) * gain"
        with code.block(""):
            fold("0.0f", step)
            code.reduce(lambda a, b: f"{a} + {b}", size, "room", sum_of(lanes, "part"), "found")
        code.add("const float total = room[0];")
        if self.epsilon is not None:
            code.add(f"const float gain = 1.0f / sqrt(total / {float(self.columns)}f + {self.epsilon!r}f);")
        with columns():
            code.add(f"const {wide} value = {finish};")
            result = code.evaluate(self.epilogue, at, ["value"], lanes)
            code.store(1, result, flat(at, self.out_strides), lanes, self.out_strides[-1])
