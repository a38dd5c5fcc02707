"""The way off the chip: words on ports, DRAM shared among ports, and the traffic of a loop nest.

A nest is written as if each port moved a word every cycle. ``Interface.time`` then asks how much of that the DRAM
can serve. If the ports together want more than it gives, it divides its bandwidth for the whole operation so that
all of them would finish together: port p gets min(1, level x words of p) words a cycle, with the level at which the
DRAM is just full, as weighted round robin with weights by traffic does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter

from .actions import NOTHING, Actions
from .fitting import Plan
from .pipeline import Step, makespan
from .specs import Memory, Stream
from .workload import TensorClass

ARRAY, STREAMING, VECTORS = "array", "streaming", "vectors"
"""Stages on the chip; every other one is a port."""

WRITE = " write"
"""An AXI port reads and writes at once: its write channel is a stage of its own."""

BOUNDS = {ARRAY: "compute", STREAMING: "nonlinear", VECTORS: "nonlinear"}


@dataclass(frozen=True, eq=False)
class Timing:
    """Cycles of a piece of work, cycles of work of each stage, bytes moved off-chip by class of tensor, actions.

    Bytes are those on the ports: the padding of burst words is paid for as well.
    """

    cycles: int
    busy: Mapping[str, float]
    ema_bytes: Mapping[TensorClass, int]
    actions: Actions = NOTHING

    @property
    def bound(self) -> str:
        """What the time is for: compute, nonlinear or bandwidth, or fill if every stage waits more than it works;
        untimed if the model gives it no time.

        A port that keeps pace with the array to a percent does not bound it.
        """
        if not self.cycles:
            return "untimed"
        stage, most = max(self.busy.items(), key=lambda item: item[1], default=("", 0))
        if 2 * most < self.cycles:
            return "fill"
        return BOUNDS.get(ARRAY if self.busy.get(ARRAY, 0) >= 0.99 * most else stage, "bandwidth")


class Interface:
    """Ports of a core and its share of the DRAM, which as many ``cores`` have in equal parts."""

    def __init__(self, memory: Memory, clock_hz: float, cores: int = 1) -> None:
        self._port_bits = memory.port_bits
        self._latency = math.ceil(memory.dram_latency_s * clock_hz)
        bits_per_cycle = Fraction(memory.dram_bytes_per_s) * 8 / Fraction(clock_hz)
        self._words_per_cycle = bits_per_cycle / memory.port_bits / cores
        self._rate = float(self._words_per_cycle)
        self.pace = self._port_bits, self._latency, self._words_per_cycle, cores

    def words(self, stream: Stream, bits: int) -> int:
        """Words on the port for a payload of ``bits``."""
        bursts = -(-bits // stream.useful_bits)
        return -(-bursts * stream.carried_bits // self._port_bits)

    def read(self, stream: Stream, bits: int, what: TensorClass, *buffers: str) -> Step:
        """Load a payload into a slot of each of ``buffers``."""
        return Step(stream.port, self.words(stream, bits), what, claims=buffers, fills=buffers)

    def read_once(self, stream: Stream, payloads: Mapping[TensorClass, int]) -> list[Step]:
        """Load payloads, so many bits by class, that nothing waits for."""
        return [self.read(stream, bits, what) for what, bits in payloads.items()]

    def read_together(
        self, stream: Stream, payloads: Sequence[tuple[int, TensorClass]], buffer: str
    ) -> Iterator[Step]:
        """Load several payloads, each of so many bits, into one slot: claimed by the first, full with the last."""
        for place, (bits, what) in enumerate(payloads):
            step = self.read(stream, bits, what, buffer)
            first, last = place == 0, place == len(payloads) - 1
            yield step._replace(claims=step.claims if first else (), fills=step.fills if last else ())

    def write(self, stream: Stream, bits: int, what: TensorClass, *buffers: str) -> Step:
        """Store a payload that lies in each of ``buffers``, and free them."""
        return Step(stream.port + WRITE, self.words(stream, bits), what, takes=buffers, frees=buffers)

    def cost(self, timing: Timing) -> float:
        """Cycles, and those that the DRAM would take for the bytes alone."""
        return timing.cycles + self._dram_cycles(timing.ema_bytes)

    def least_cost(self, plan: Plan) -> float:
        """What a plan costs at least: as if its busiest stage never waited."""
        return max(plan.busy.values(), default=0) + self._dram_cycles(self._traffic(plan))

    def time(self, plan: Plan) -> Timing:
        """The time of a plan whose ports move a word a cycle at most."""
        words = {stage: cycles for stage, cycles in plan.busy.items() if cycles and stage not in BOUNDS}
        stretches = self._stretches(words)
        begins = {port: self._latency for port in words if not port.endswith(WRITE)}
        busy = {stage: cycles * float(stretches.get(stage, 1)) for stage, cycles in plan.busy.items()}
        return Timing(makespan(plan.nest, plan.slots, stretches, begins), busy, self._traffic(plan))

    def _traffic(self, plan: Plan) -> dict[TensorClass, int]:
        ema: dict[TensorClass, int] = {}
        for (_, what), words in plan.work.items():
            if isinstance(what, TensorClass):
                ema[what] = ema.get(what, 0) + words * self._port_bits // 8
        return ema

    def _dram_cycles(self, ema_bytes: Mapping[TensorClass, int]) -> float:
        return sum(ema_bytes.values()) * 8 / self._port_bits / self._rate

    def dram_cycles(self, words: int) -> float:
        """What the DRAM takes for words of the ports."""
        return words / self._rate

    def _stretches(self, words: Mapping[str, int]) -> dict[str, Fraction]:
        """Cycles for a word of each port."""
        waiting, (left, cycles) = dict(words), self._words_per_cycle.as_integer_ratio()
        # From the busiest port on: whoever could take more than a port's width leaves the rest to the others.
        while len(waiting) * cycles > left:
            total = sum(waiting.values()) * cycles
            port, count = max(waiting.items(), key=itemgetter(1))
            if left * count < total:
                return {name: Fraction(total, left * each) for name, each in waiting.items()}
            del waiting[port]
            left -= cycles
        return {}
