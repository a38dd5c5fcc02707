"""Kernels that do one thing as fast as the machine can. ``work`` is how much of it a run does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ...targets.cpu.dots import DOTS
from ...targets.cpu.kernel import Kernel, fill, local
from ...targets.cpu.tiles import FORMATS, configure, unit
from ...targets.packing import TILE_ROWS

TILE_SUMS, TILE_FACTORS = (0, 1, 2, 3, 4, 5), (6, 7)
"""Registers of the matrix unit: more sums than an instruction's latency has room for."""


@dataclass(frozen=True)
class Multiply(Kernel):
    """Operands: sums [tasks, lanes], factors [2]. ``chains`` vectors of sums that do not wait for one another, in
    registers; they are of numbers of ``kind``.
    """

    tasks: int
    chains: int
    lanes: int
    sweeps: int
    kind: str = "float32"

    @property
    def work(self) -> int:
        """Multiplications and additions."""
        return 2 * self.tasks * self.sweeps * self.chains * self.lanes

    def body(self, operands: Sequence[Any]) -> None:
        out, factors = operands
        with T.parallel(0, self.tasks) as task:
            factor, term = (T.bind(T.cast(factors[index], self.kind)) for index in (0, 1))
            sums = [local(self.lanes, self.kind) for _ in range(self.chains)]
            for index, total in enumerate(sums):
                fill(total, self.lanes, float(index))
            with T.serial(0, self.sweeps):
                for total in sums:
                    with T.vectorized(0, self.lanes) as lane:
                        # The sum is what is multiplied: a product that stays the same could leave the loop.
                        T.buffer_store(total, total[lane] * factor + term, [lane])
            _store_sum(out, task, sums, self.lanes)


@dataclass(frozen=True)
class MultiplyDots(Multiply):
    """The same by the instruction ``dot``, which adds several products to a sum."""

    dot: str = ""

    @property
    def work(self) -> int:
        return super().work * DOTS[self.dot].together

    @property
    def functions(self) -> str:
        return DOTS[self.dot].function(self.lanes)

    def body(self, operands: Sequence[Any]) -> None:
        out, factors = operands
        row = T.Ramp(0, 1, self.lanes)
        with T.parallel(0, self.tasks) as task:
            left, right = (
                T.bind(T.Broadcast(T.reinterpret("int32", factors[index]), self.lanes)) for index in (0, 1)
            )
            sums = [local(self.lanes, DOTS[self.dot].sums_dtype) for _ in range(self.chains)]
            for index, total in enumerate(sums):
                fill(total, self.lanes, index)
            with T.serial(0, self.sweeps):
                for total in sums:
                    T.buffer_store(total, DOTS[self.dot].add(total[row], left, right, self.lanes), [row])
            _store_sum(out, task, sums, self.lanes)


@dataclass(frozen=True)
class MultiplyTiles(Kernel):
    """Products of numbers in ``format`` on a matrix unit. Operands: those of ``Multiply``, left as they are."""

    format: str
    tasks: int
    sweeps: int

    @property
    def work(self) -> int:
        """Multiplications and additions."""
        return (
            2 * self.tasks * self.sweeps * len(TILE_SUMS) * TILE_ROWS * TILE_ROWS * FORMATS[self.format].step
        )

    def body(self, operands: Sequence[Any]) -> None:
        with T.parallel(0, self.tasks):
            configure([TILE_ROWS] * (len(TILE_SUMS) + 2))
            for register in (*TILE_SUMS, *TILE_FACTORS):
                unit("tilezero", T.uint8(register))
            with T.serial(0, self.sweeps):
                for register in TILE_SUMS:
                    unit(FORMATS[self.format].instruction, *map(T.uint8, (register, *TILE_FACTORS)))
            unit("tilerelease")


@dataclass(frozen=True)
class Fill(Kernel):
    """Operand 0: ``tasks`` stretches of ``count`` floats, set to one. Memory never written to is not there yet."""

    tasks: int
    count: int
    lanes: int

    @property
    def work(self) -> int:
        """Bytes written."""
        return 4 * self.tasks * self.count

    def body(self, operands: Sequence[Any]) -> None:
        vectors = self.count // self.lanes
        with (
            T.parallel(0, self.tasks) as task,
            T.serial(0, vectors) as vector,
            T.vectorized(0, self.lanes) as lane,
        ):
            at = task * self.count + vector * self.lanes + lane
            T.buffer_store(operands[0], T.float32(1), [at])


@dataclass(frozen=True)
class Read(Kernel):
    """Operands: sums [tasks, lanes], then ``tasks`` stretches of ``count`` floats, read ``sweeps`` times."""

    tasks: int
    count: int
    chains: int
    lanes: int
    sweeps: int

    @property
    def work(self) -> int:
        """Bytes read."""
        return 4 * self.tasks * self.count * self.sweeps

    def body(self, operands: Sequence[Any]) -> None:
        out, data = operands
        step = self.chains * self.lanes
        with T.parallel(0, self.tasks) as task:
            sums = [local(self.lanes) for _ in range(self.chains)]
            for total in sums:
                fill(total, self.lanes, 0.0)
            with T.serial(0, self.sweeps), T.serial(0, self.count // step) as turn:
                for index, total in enumerate(sums):
                    with T.vectorized(0, self.lanes) as lane:
                        at = task * self.count + turn * step + index * self.lanes + lane
                        T.buffer_store(total, total[lane] + data[at], [lane])
            _store_sum(out, task, sums, self.lanes)


def _store_sum(out: Any, task: Any, sums: Sequence[Any], lanes: int) -> None:
    with T.vectorized(0, lanes) as lane:
        whole = sums[0][lane]
        for total in sums[1:]:
            whole = whole + total[lane]
        T.buffer_store(out, T.cast(whole, "float32"), [task * lanes + lane])
