"""What a program costs on its target, predicted from the profile: the roofline of every call; here on a processor.

A call takes no less than its instructions and no less than what it reads and writes (Williams, Waterman and Patterson,
Communications of the ACM 52.4, 2009), and something to wake the cores. Instructions are counted from the kernel's
specification, what overlapping tiles compute twice included; weights come from memory, since the whole model passes
before they are wanted again, and activations from the second-level caches while these hold them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

from ...ir.program import Program
from ...passes.base import Context, apply
from ...passes.costs import Cost
from ...targets import memory
from ...targets.cpu.attention import Attention
from ...targets.cpu.contraction import Contraction
from ...targets.cpu.dots import DOTS
from ...targets.cpu.elementwise import Map
from ...targets.cpu.group_norm import GroupNorm
from ...targets.cpu.halves import WIDENED
from ...targets.cpu.reduction import Reduction
from ...targets.cpu.row_norm import LayerNorm, Softmax
from ...targets.cpu.tile_attention import TileAttention
from ...targets.cpu.tiles import STEP, WIDTH, TileContraction
from ...targets.cpu.winograd import WinogradInput, WinogradOutput
from ...targets.expressions import Apply, Expression
from ...targets.lower import planned_calls
from ...targets.lowering import Buffer, PendingCall
from ...targets.packing import TILE_ROWS
from ...targets.profile import GpuProfile, Profile, Target
from ...targets.winograd import TAPS, Matrix, transforms
from ..pipeline import pipeline
from . import gpu
from .joining import anchors, named, owned

LAUNCH_CYCLES = 5000
"""Waking the other cores and waiting for the last."""

ATTAINED = 0.85
"""Of the multiply-adds that cores could start: what the profiles' ``macs_per_byte`` are reckoned with."""

CACHE_SHARE = 0.25
"""What the second-level cache delivers, of what loads could take from the first."""

TILE_CYCLES = 16
"""Of an instruction of the matrix unit before the next may start (Intel's optimisation manual, 20.5)."""

TILE_SUMS = TILE_ROWS**2
"""That one instruction adds to."""

INSTRUCTIONS = {
    "Div": 8, "Reciprocal": 8, "Sqrt": 12, "Exp": 18, "Sigmoid": 28, "Swish": 29, "Tanh": 29, "Erf": 38, "Gelu": 42,
    "GeluTanh": 35, "Pow": 300, "Log": 300, "Sin": 300, "Cos": 300,
}  # fmt: skip
"""A vector's worth of an operator, where it takes more than one: as vector_math.py writes it. A division takes as long
as eight; libm's functions take one number after the other."""

EXP = INSTRUCTIONS["Exp"]

DOT_INSTRUCTIONS = {
    "vpdpbusd": 1, "sdot": 1, "smmla": 1.2, "pmaddwd": 4, "shifts": 6, "vdpbf16ps": 1, "bfdot": 1,
}  # fmt: skip
"""Of a vector of sums to which a step's products are added: unpacking that rows share counts half, and putting two rows
side by side is shared by five vectors or so."""

SINGLE_INSTRUCTIONS = {"float32": 1, "int32": 3}
"""The same for products one by one, by what they are summed in; of float16 numbers half as many."""


@dataclass(frozen=True)
class Plan:
    """A program's calls by variant, each with the anchor of the node that it is for, and what they read and write."""

    calls: Mapping[str, Sequence[tuple[str, PendingCall]]]
    buffers: Mapping[str, Buffer]


def planned(program: Program, profile: Target, precision: str) -> Plan:
    """Of a program as a pass has it, values between its nodes stored in ``precision``."""
    fused = apply(pipeline(precision), named(program), Context())
    calls, buffers = planned_calls(fused, profile)
    owners = {variant: anchors(fused.variants[variant]) for variant in calls}
    return Plan({variant: list(owned(found, owners[variant])) for variant, found in calls.items()}, buffers)


@dataclass(frozen=True)
class Predicted:
    """Program -> its cost with the profile's kernels, values between them stored in ``precision``."""

    profile: Target
    precision: str = "float32"

    def __call__(self, program: Program) -> Cost:
        return self.of(planned(program, self.profile, self.precision))

    def of(self, plan: Plan) -> Cost:
        seconds: dict[str, float] = defaultdict(float)
        weights: dict[str, float] = defaultdict(float)
        counted = set[str]()
        buffers = plan.buffers
        for variant, calls in plan.calls.items():
            for node, call in calls:
                if variant == "full":
                    seconds[node] += self._seconds(call, buffers)
                for name in dict.fromkeys(name for name, _ in call.operands):
                    if buffers[name].space == "weights" and name not in counted:
                        counted.add(name)
                        weights[node] += memory.aligned(buffers[name].size_bytes)
        return Cost({"latency": dict(seconds), "bytes": dict(weights)})

    def _seconds(self, call: PendingCall, buffers: Mapping[str, Buffer]) -> float:
        if isinstance(self.profile, GpuProfile):
            return gpu.call_seconds(call, self.profile)
        assert isinstance(self.profile, Profile)
        return call_seconds(call, buffers, self.profile)


def call_seconds(call: PendingCall, buffers: Mapping[str, Buffer], profile: Profile) -> float:
    """Of one call on all cores."""
    core_cycles = profile.cores * profile.clock_hz
    memory_rate = core_cycles * ATTAINED * profile.vector_lanes * profile.fma_rate / profile.macs_per_byte
    cache_rate = core_cycles * CACHE_SHARE * profile.vector_lanes * profile.load_rate * 4
    moved = 0.0
    for (name, _), size_bytes in zip(call.operands, call.moved_bytes, strict=True):
        buffer = buffers[name]
        kept = buffer.space != "weights" and buffer.size_bytes <= profile.cores * profile.l2_bytes
        moved += size_bytes / (cache_rate if kept else memory_rate)
    instructions = _cycles(call.kernel, profile) / core_cycles
    return LAUNCH_CYCLES / profile.clock_hz + max(instructions, moved)


@singledispatch
def _cycles(kernel: object, profile: Profile) -> float:
    """Of one core that does all of a call by itself. What only copies waits for memory alone."""
    return 0.0


@_cycles.register
def _(kernel: Contraction, profile: Profile) -> float:
    sums = kernel.batch[0] * kernel.tiles * kernel.tile.rows * kernel.panels * kernel.tile.width
    per_step = SINGLE_INSTRUCTIONS[kernel.sums_dtype] if kernel.dot is None else DOT_INSTRUCTIONS[kernel.dot]
    if kernel.run:
        per_step *= 0.5 * (1 + WIDENED / kernel.run)
    products = sums * math.prod(kernel.reduce) * per_step / ATTAINED
    return _vectors(products + sums // kernel.parts * _instructions(kernel.epilogue), profile)


@_cycles.register
def _(kernel: TileContraction, profile: Profile) -> float:
    sums = 2 * kernel.pairs * TILE_ROWS * kernel.panels * WIDTH
    multiplied = sums // TILE_SUMS * math.prod(kernel.reduce) * TILE_CYCLES
    return multiplied / ATTAINED + _vectors(
        sums // kernel.parts * (2 + _instructions(kernel.epilogue)), profile
    )


@_cycles.register
def _(kernel: Attention, profile: Profile) -> float:
    scores = kernel.batch * kernel.heads * kernel.bands * kernel.tile * kernel.keys
    products = (kernel.depth + kernel.value_depth) / (1 if kernel.dot is None else DOTS[kernel.dot].together)
    return _vectors(scores * (products / ATTAINED + EXP), profile)


@_cycles.register
def _(kernel: TileAttention, profile: Profile) -> float:
    scores = kernel.batch * kernel.heads * kernel.queries * kernel.keys
    products = scores * (kernel.depth + kernel.value_depth) / (TILE_SUMS * STEP)
    return products * TILE_CYCLES / ATTAINED + _vectors(scores * EXP, profile)


@_cycles.register
def _(kernel: GroupNorm, profile: Profile) -> float:
    elements = kernel.images * math.prod(kernel.pixels) * kernel.channels
    # A sum, squares of differences, a scale and a shift.
    return _vectors(elements * (6 + _instructions(kernel.epilogue)), profile)


@_cycles.register
def _(kernel: LayerNorm, profile: Profile) -> float:
    return _vectors(math.prod(kernel.rows) * kernel.columns * (6 + _instructions(kernel.epilogue)), profile)


@_cycles.register
def _(kernel: Softmax, profile: Profile) -> float:
    return _vectors(
        math.prod(kernel.rows) * kernel.columns * (2 * EXP + 10 + _instructions(kernel.epilogue)), profile
    )


@_cycles.register
def _(kernel: Map, profile: Profile) -> float:
    return _vectors(math.prod(kernel.extents) * _instructions(kernel.expression), profile)


@_cycles.register
def _(kernel: Reduction, profile: Profile) -> float:
    terms = math.prod(kernel.reduce) * sum(map(_instructions, kernel.terms))
    return _vectors(math.prod(kernel.extents) * (terms + _instructions(kernel.epilogue)), profile)


@_cycles.register
def _(kernel: WinogradInput, profile: Profile) -> float:
    side = kernel.outputs + TAPS - 1
    terms = 2 * side * _terms(transforms(kernel.outputs).inputs)
    return _vectors(math.prod(kernel.tiles) * kernel.channels * terms, profile)


@_cycles.register
def _(kernel: WinogradOutput, profile: Profile) -> float:
    side = kernel.outputs + TAPS - 1
    terms = (side + kernel.outputs) * _terms(transforms(kernel.outputs).outputs)
    results = kernel.outputs**2 * _instructions(kernel.epilogue)
    return _vectors(math.prod(kernel.tiles) * kernel.columns * (terms + results), profile)


def _vectors(instructions: float, profile: Profile) -> float:
    """Cycles of so many instructions, counted by the number."""
    return instructions / (profile.vector_lanes * profile.fma_rate)


def _terms(matrix: Matrix) -> int:
    return sum(bool(one) for row in matrix for one in row)


def _instructions(expression: Expression) -> float:
    """To compute and store one element. What occurs in several places is computed once."""
    return 1 + sum(INSTRUCTIONS.get(one.op, 1) for one in _applied(expression))


def _applied(expression: Expression) -> set[Apply]:
    if not isinstance(expression, Apply):
        return set()
    return {expression}.union(*map(_applied, expression.args))
