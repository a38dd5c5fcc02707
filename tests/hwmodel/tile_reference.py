"""A core that works tile by tile in slow motion: products placed one by one, tiles one after another, words counted.

Written from the description of the machine, not from the plans: there are no loops over counts, no closed forms and
no edge cases here. What comes out is a flat list of steps, which ``reference.simulate`` plays cycle by cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from fick.hwmodel.matmul import Tiling
from fick.hwmodel.nonlinear import ACTIVATIONS, Task
from fick.hwmodel.pipeline import Step
from fick.hwmodel.specs import Stream, Tiled
from fick.hwmodel.tiled import Choice
from fick.hwmodel.workload import Convolution, Gemm, Kind, TensorClass, Vectors

from .reference import simulate


def spans(total: int, size: int) -> list[range]:
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def count_up_to(amount: Fraction | int, each: Fraction | int) -> int:
    """How many of ``each`` it takes to reach ``amount``."""
    number, reached = 0, Fraction(0)
    while reached < amount:
        number, reached = number + 1, reached + each
    return number


class TooSmall(Exception):
    """A buffer does not hold what the machine must have at hand."""


class Reference:
    def __init__(self, spec: Tiled, task: Task, choice: Choice) -> None:
        self.choice = choice
        self.spec, self.task, self.buffers = spec, task, spec.buffers
        self.array: Any = spec.array
        self.streams, self.lanes = spec.memory.streams, spec.nonlinear.elements_per_cycle
        self.operation, self.result = task.operation, task.operation.result
        self.steps: list[Step] = []
        self.slots = {"results": 2, "kept": 2, "out": 2, "in": 2, "block": 2, "statistics": 2, "operand": 1}

    def cycles(self) -> int:
        bounds = self.operation.bounds
        if isinstance(bounds, Vectors):
            self.constants(self.streams.activations)
            self.standalone(bounds)
        elif isinstance(bounds, Convolution) and bounds.kernel != (1, 1):
            self.constants(self.streams.convolution_weights)
            self.steps.append(Step("array", self.array.fill_cycles))
            for _ in range(bounds.groups):
                self.convolution(bounds)
        else:
            self.constants(self.streams.matmul_weights)
            self.steps.append(Step("array", self.array.fill_cycles))
            gemm = bounds.as_gemm()
            for _ in range(gemm.batch):
                self.product(gemm)
        return simulate(self.shared(), self.slots)

    def shared(self) -> list[Step]:
        """DRAM divided among ports: each gets what it needs for its share, and nobody more than a word a cycle."""
        words: dict[str, int] = {}
        for step in self.steps:
            if step.what:
                words[step.stage] = words.get(step.stage, 0) + step.cycles
        rate = dict.fromkeys(words, Fraction(0))
        supply = (
            Fraction(self.spec.memory.dram_bytes_per_s)
            * 8
            / Fraction(self.spec.clock_hz)
            / self.spec.memory.port_bits
        )
        thirsty = {port for port, count in words.items() if count}
        # Pour until nothing is left or nobody wants more; each round fills at least one port or empties the jug.
        while supply > 0 and thirsty:
            total = sum(words[port] for port in thirsty)
            level = min([supply / total, *((1 - rate[port]) / words[port] for port in thirsty)])
            for port in thirsty:
                rate[port] += level * words[port]
            supply -= level * total
            thirsty = {port for port in thirsty if rate[port] < 1}
        latency = count_up_to(Fraction(self.spec.memory.dram_latency_s) * Fraction(self.spec.clock_hz), 1)
        waits = [Step(port, latency) for port in words if not port.endswith(" write")]
        slowed = [
            Step(
                one.stage,
                one.cycles / rate[one.stage],
                one.what,
                one.takes,
                one.claims,
                one.fills,
                one.frees,
            )
            if one.what and one.cycles
            else one
            for one in self.steps
        ]
        return waits + slowed

    # The memory's side.

    def words(self, stream: Stream, bits: Fraction | int) -> int:
        return count_up_to(
            count_up_to(bits, stream.useful_bits) * stream.carried_bits, self.spec.memory.port_bits
        )

    def read(self, stream: Stream, bits: Fraction | int, *buffers: str, claim: bool = True) -> None:
        claims = buffers if claim else ()
        self.steps.append(Step(stream.port, self.words(stream, bits), "read", claims=claims, fills=buffers))

    def write(self, stream: Stream, bits: int, buffer: str) -> None:
        self.steps.append(
            Step(f"{stream.port} write", self.words(stream, bits), "write", takes=(buffer,), frees=(buffer,))
        )

    def constants(self, stream: Stream) -> None:
        by_class: dict[TensorClass, int] = {}
        for operation in filter(None, (self.operation, self.task.behind)):
            for operand in (fused.operand for fused in operation.fused if fused.operand):
                if operand.elements < self.result.elements:
                    by_class[operand.tensor_class] = by_class.get(operand.tensor_class, 0) + operand.size_bits
        for bits in by_class.values():
            self.steps.append(Step(stream.port, self.words(stream, bits), "read"))

    def residuals(self, results: int) -> None:
        for operand in self.task.residuals:
            self.read(self.streams.shortcut, results * operand.bits, "shortcut")

    def halves(self, capacity: int, needed: int) -> int:
        if needed > capacity:
            raise TooSmall
        return 2 if needed + needed <= capacity else 1

    # The nonlinear side.

    def stage(self, name: str, elements: int, taken: str, filled: Sequence[str]) -> None:
        cycles, out = count_up_to(elements, self.lanes), tuple(filled)
        self.steps.append(Step(name, cycles, "", (taken,), out, out, (taken,)))

    def kept(self, results: int) -> int:
        return count_up_to(Fraction(results * self.result.elements, self.task.results), 1)

    def drain(self, results: int) -> None:
        elements, bits = self.kept(results), self.kept(results) * self.result.bits
        if self.task.behind:
            also = ("kept",) if self.operation.readers > 1 else ()
            self.stage("streaming", elements, "results", also)
            if also:
                self.write(self.streams.shortcut, bits, "kept")
        elif any(fused.kind in ACTIVATIONS for fused in self.operation.fused):
            self.stage("streaming", elements, "results", ("out",))
            self.write(self.streams.output, bits, "out")
        else:
            self.write(self.streams.output, bits, "results")

    def open(self) -> None:
        if self.task.behind:
            self.steps.append(Step("streaming", 0, claims=("block",)))

    def close(self, results: int) -> None:
        if self.task.behind:
            self.steps.append(Step("streaming", 0, fills=("block",)))
            self.stage("vectors", self.kept(results), "block", ("out",))
            self.write(self.streams.output, self.kept(results) * self.task.behind.result.bits, "out")

    def standalone(self, vectors: Vectors) -> None:
        assert isinstance(self.choice, int)
        room = self.choice
        self.slots["in"] = self.slots["block"] = self.halves(
            self.buffers.vectors, room * self.buffers.vector_element_bits
        )
        operands = (*self.operation.operands, *self.task.residuals)
        each = Fraction(sum(operand.size_bits for operand in operands), vectors.count * vectors.length)

        def load(count: int) -> None:
            self.read(self.streams.activations, each * count, "in")

        def store(count: int, buffer: str) -> None:
            self.write(self.streams.output, count * self.result.bits, buffer)

        whole = self.operation.kind not in (Kind.NORMALISATION, Kind.SOFTMAX)
        if whole or vectors.length <= room:
            for span in spans(vectors.count * vectors.length, room):
                load(len(span))
                if self.operation.kind is Kind.MOVEMENT:
                    store(len(span), "in")
                elif whole:
                    self.stage("streaming", len(span), "in", ("out",))
                    store(len(span), "out")
                else:
                    self.stage("streaming", len(span), "in", ("block",))
                    self.stage("vectors", len(span), "block", ("out",))
                    store(len(span), "out")
            return
        for _ in range(vectors.count):
            for span in spans(vectors.length, room):
                load(len(span))
                self.stage("streaming", len(span), "in", ())
            self.steps += [
                Step("streaming", 0, fills=("statistics",)),
                Step("vectors", 0, takes=("statistics",)),
            ]
            for span in spans(vectors.length, room):
                load(len(span))
                self.stage("vectors", len(span), "in", ("out",))
                store(len(span), "out")

    # The array's side.

    def slices(self) -> tuple[int, int]:
        """Passes over the first and the second operand, and that no pass is wider than the multiplier."""
        found: list[int] = []
        slots = (self.array.activation_slot_bits * self.array.multiplies_per_pe, self.array.weight_slot_bits)
        for operand, slot in zip(self.operation.operands, slots, strict=False):
            width = min(bits for bits in self.array.operand_bits if bits >= operand.bits)
            found.append(len(range(0, width, slot)))
        return found[0], found[1]

    def product(self, gemm: Gemm) -> None:
        buffers = self.buffers
        first, second = self.operation.operands[:2]
        high, wide, depth = self.tile(gemm)
        passes, slices = self.slices()
        steps = len(spans(gemm.reduction, depth)) * slices
        assert isinstance(self.choice, Tiling)
        rows, resident = self.choice.rows, self.choice.kept == "all"
        part = 1 if self.choice.kept == "step" else steps

        def bits(columns: int) -> int:
            """A column tile of the second operand, or what a step takes of one slice of it."""
            if part == 1 and self.choice == Tiling(rows, "step"):
                return count_up_to(Fraction(columns * depth * second.bits, slices), 1)
            return columns * gemm.reduction * second.bits

        self.slots["activations"] = self.halves(
            buffers.matmul_activations, rows * gemm.reduction * first.bits
        )
        self.slots["weights"] = self.halves(buffers.matmul_weights, bits(wide))
        residual = sum(operand.bits for operand in self.task.residuals)
        self.slots["shortcut"] = self.halves(buffers.shortcut, high * wide * residual)
        if resident:
            self.slots["operand"] = self.halves(
                buffers.matmul_weights, gemm.reduction * gemm.columns * second.bits
            )
            self.steps.append(Step(self.streams.matmul_weights.port, 0, claims=("operand",)))
        if self.task.behind:
            self.slots["block"] = self.halves(
                buffers.vectors, self.kept(rows * gemm.columns) * buffers.vector_element_bits
            )
        shortcut = ("shortcut",) if residual else ()
        for block in spans(gemm.rows, rows):
            self.read(self.streams.activations, len(block) * gemm.reduction * first.bits, "activations")
            self.open()
            for across in spans(gemm.columns, wide):
                loaded = part == steps and (block.start == 0 or not resident)
                if loaded:
                    self.read(self.streams.matmul_weights, bits(len(across)), "weights")
                for down in spans(len(block), high):
                    self.residuals(len(down) * len(across))
                    self.steps.append(Step("array", 0, takes=("activations", *shortcut), claims=("results",)))
                    assert self.placed(len(down), len(across))
                    for some in spans(steps, part):
                        if part < steps:
                            self.read(self.streams.matmul_weights, bits(len(across)), "weights")
                        # One slice of one step of the reduction for every pass over the first operand.
                        cycles = sum(1 for _ in some for _ in range(passes))
                        freed = ("weights",) if part < steps else ()
                        self.steps.append(Step("array", cycles, takes=("weights",), frees=freed))
                    self.steps.append(Step("array", 0, fills=("results",), frees=shortcut))
                    self.drain(len(down) * len(across))
                if loaded:
                    self.steps.append(Step("array", 0, frees=("weights",)))
            self.steps.append(Step("array", 0, frees=("activations",)))
            self.close(len(block) * gemm.columns)
        if resident:
            self.steps.append(Step("array", 0, frees=("operand",)))

    def tile(self, gemm: Gemm) -> tuple[int, int, int]:
        """Rows and columns of results at a time, and terms of a sum in a cycle."""
        array = self.array
        rows, columns = self.sides()
        return min(gemm.rows, rows * array.matmul_rows), min(gemm.columns, columns * array.matmul_columns), 1

    def sides(self) -> tuple[int, int]:
        array = self.array
        return array.sub_array_rows * array.pe_rows, array.sub_array_columns * array.pe_columns

    def placed(self, rows: int, columns: int) -> bool:
        """Whether every result of a tile has an accumulator of its own."""
        array, (pe_rows, pe_columns) = self.array, self.sides()
        places = {
            (row % pe_rows, column % pe_columns, row // pe_rows, column // pe_columns)
            for row in range(rows)
            for column in range(columns)
        }
        inside = all(
            down < array.matmul_rows and across < array.matmul_columns for _, _, down, across in places
        )
        return inside and len(places) == rows * columns

    def convolution(self, bounds: Convolution) -> None:
        buffers, residual = self.buffers, sum(operand.bits for operand in self.task.residuals)
        data, filters = self.operation.operands[:2]
        inputs, outputs = bounds.inputs // bounds.groups, bounds.outputs // bounds.groups
        tile = self.outputs()
        each = inputs * bounds.kernel[0] * bounds.kernel[1] * filters.bits
        assert isinstance(self.choice, int)
        together, picture = self.choice, bounds.rows * bounds.columns
        if self.task.behind:
            assert isinstance(self.task.behind.bounds, Vectors)
            channels = self.task.behind.bounds.length // picture
            assert all(len(group) % channels == 0 for group in spans(outputs, together))
            self.slots["block"] = self.halves(
                buffers.vectors, self.kept(picture * together) * buffers.vector_element_bits
            )
        line = bounds.size[1] * inputs * data.bits
        resident = bounds.batch * bounds.size[0] * line <= buffers.lines
        kept = max(0, bounds.kernel[0] - bounds.stride[0])
        fitting = [n for n in (1, 2) if resident or (kept + n * bounds.stride[0]) * line <= buffers.lines]
        if not fitting:
            raise TooSmall
        self.slots["lines"] = max(fitting)
        self.slots["filters"] = self.halves(buffers.convolution_weights, together * each)
        self.slots["shortcut"] = self.halves(buffers.shortcut, bounds.columns * together * residual)
        row_cycles = self.row_cycles(bounds, inputs)
        padding = max(0, (bounds.rows - 1) * bounds.stride[0] + bounds.kernel[0] - bounds.size[0]) // 2
        shortcut = ("shortcut",) if residual else ()
        for group in spans(outputs, together):
            self.steps.append(Step(self.streams.convolution_weights.port, 0, claims=("filters",)))
            for image in range(bounds.batch):
                self.open()
                there = 0
                for row in range(bounds.rows):
                    last = row * bounds.stride[0] + bounds.kernel[0] - padding
                    fresh = [number for number in range(bounds.size[0]) if there <= number < last]
                    there += len(fresh)
                    loaded = bool(fresh) and (group.start == 0 or not resident)
                    if loaded:
                        self.read(self.streams.activations, len(fresh) * line, "lines")
                    self.residuals(bounds.columns * len(group))
                    self.steps.append(Step("array", 0, takes=("lines", *shortcut), claims=("results",)))
                    for some in spans(len(group), tile):
                        if image == row == 0:
                            self.read(
                                self.streams.convolution_weights, len(some) * each, "filters", claim=False
                            )
                        self.steps.append(Step("array", row_cycles, takes=("filters",)))
                    freed = (*(("lines",) if loaded else ()), *shortcut)
                    self.steps.append(Step("array", 0, fills=("results",), frees=freed))
                    self.drain(bounds.columns * len(group))
                self.close(picture * len(group))
            self.steps.append(Step("array", 0, frees=("filters",)))

    def row_cycles(self, bounds: Convolution, inputs: int) -> int:
        """Cycles of an output row of a tile of outputs: which products a PE does in each, all of them once."""
        first, second = self.slices()
        lanes, tap_lanes, pixel_lanes = self.window()
        streamed = count_up_to(Fraction(bounds.columns) / Fraction(self.array.strided_use), 1)
        if bounds.stride[1] == 1:
            streamed = bounds.columns
        done: list[tuple[int, int, int, int]] = []
        cycles = 0
        for some in spans(inputs, lanes):
            for kernel_row in range(bounds.kernel[0]):
                for taps in spans(bounds.kernel[1], tap_lanes):
                    for pixels in spans(streamed, pixel_lanes):
                        cycles += first * second
                        done += [
                            (n, kernel_row, tap, pixel) for n in some for tap in taps for pixel in pixels
                        ]
        assert len(set(done)) == len(done) == inputs * bounds.kernel[0] * bounds.kernel[1] * streamed
        return cycles

    def outputs(self) -> int:
        """Output channels at a time."""
        return self.sides()[1]

    def window(self) -> tuple[int, int, int]:
        """Inputs, taps and pixels in a cycle."""
        return self.sides()[0], self.array.convolution_taps, self.array.convolution_pixels


class BitSliceReference(Reference):
    """The same life around another array: every product of a slice by a slice has a multiplier of its own."""

    def slices(self) -> tuple[int, int]:
        sizes = self.array.activation_slice_bits, self.array.weight_slice_bits
        passes, slices = (
            len(range(0, one.bits, size)) for one, size in zip(self.operation.operands, sizes, strict=False)
        )
        return passes, slices

    def tile(self, gemm: Gemm) -> tuple[int, int, int]:
        array = self.array
        return (
            min(gemm.rows, array.held),
            min(gemm.columns, array.streamed),
            min(gemm.reduction, array.inputs * array.taps),
        )

    def placed(self, rows: int, columns: int) -> bool:
        return rows <= self.array.held and columns <= self.array.streamed

    def outputs(self) -> int:
        return self.array.held

    def window(self) -> tuple[int, int, int]:
        return self.array.inputs, self.array.taps, self.array.streamed
