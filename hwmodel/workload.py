"""What a fused program asks of an accelerator: loop bounds, operand widths and tensor classes, operator by operator.

Only sizes are kept. An ``Operation`` knows no graph any more, so that operations may as well come from a table of
layer shapes (``topology.py``), and two operations that cost the same compare equal but for their names.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from ..ir.rates import Rate


class Kind(StrEnum):
    """What an operation computes."""

    CONVOLUTION = "convolution"
    MATMUL = "matmul"
    SCORES = "attention scores"
    VALUES = "attention values"
    NORMALISATION = "normalisation"
    SOFTMAX = "softmax"
    ACTIVATION = "activation"
    ELEMENTWISE = "elementwise"
    MOVEMENT = "movement"


SCALED = frozenset({Kind.NORMALISATION, Kind.SOFTMAX})
"""Operators that scale each vector by what its elements have in common."""


class TensorClass(StrEnum):
    """What a tensor is; external memory access is reported by these."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    SELF_SCORES = "self-attention scores"
    CROSS_SCORES = "cross-attention scores"


@dataclass(frozen=True)
class Operand:
    """A tensor that an operation reads or writes. ``value`` names it in the program, whatever views lie between.

    ``packed_bits`` is what an element takes off the chip, in the mean, if it is compressed there.
    """

    value: str
    elements: int
    bits: int
    tensor_class: TensorClass
    packed_bits: Fraction | None = None

    @property
    def moved_bits(self) -> int | Fraction:
        """What an element takes off the chip."""
        return self.bits if self.packed_bits is None else self.packed_bits

    @property
    def size_bits(self) -> int:
        """What all of it takes off the chip."""
        return math.ceil(self.elements * self.moved_bits)

    @property
    def nameless(self) -> Hashable:
        """All of it but the name."""
        return self.elements, self.bits, self.tensor_class, self.packed_bits

    def part(self, label: str, share: Fraction, bits: int | None = None) -> Operand:
        """A share of its rows under a name of its own, of other ``bits`` if they are given."""
        return replace(
            self, value=f"{self.value}/{label}", elements=round(self.elements * share), bits=bits or self.bits
        )


@dataclass(frozen=True)
class Convolution:
    """Loop bounds of a convolution. ``rows`` and ``columns`` are those of the output, ``size`` is rows and columns
    of the input; for each of ``groups`` groups ``outputs / groups`` filters of ``inputs / groups`` channels by
    ``kernel`` slide by ``stride``. What the windows need beyond the input is padding, and never fetched.
    """

    batch: int
    outputs: int
    inputs: int
    rows: int
    columns: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether it is a product of pixels by channels."""
        return self.kernel == (1, 1)

    @property
    def macs(self) -> int:
        filters = self.outputs * (self.inputs // self.groups) * math.prod(self.kernel)
        return self.batch * self.rows * self.columns * filters

    def as_gemm(self) -> Gemm:
        """The same products with every window laid out as a row, one product for each image and group."""
        return Gemm(
            self.batch * self.groups,
            self.rows * self.columns,
            self.inputs // self.groups * math.prod(self.kernel),
            self.outputs // self.groups,
        )


@dataclass(frozen=True)
class Gemm:
    """Loop bounds of ``batch`` products [rows, reduction] x [reduction, columns]."""

    batch: int
    rows: int
    reduction: int
    columns: int

    @property
    def macs(self) -> int:
        return self.batch * self.rows * self.reduction * self.columns

    def as_gemm(self) -> Gemm:
        return self


@dataclass(frozen=True)
class Vectors:
    """``count`` vectors of ``length`` elements. A normalisation or a softmax treats each on its own."""

    count: int
    length: int

    @property
    def elements(self) -> int:
        return self.count * self.length

    @property
    def macs(self) -> int:
        return 0


Bounds = Convolution | Gemm | Vectors


@dataclass(frozen=True)
class Fused:
    """Work done on an operation's results on their way out; ``operand`` is what it reads besides."""

    kind: str
    operand: Operand | None = None


@dataclass(frozen=True)
class Operation:
    """One operator of one variant.

    ``operands``  for a product the rows' side first, the side that the array may hold second
    ``group``     the fusion group it belongs to; attention's three operations share one
    ``readers``   how often the result is read, one for each operation and one if the variant returns it
    ``stage``     stage of the UNet, such as "down 0" or "mid"
    """

    name: str
    kind: Kind
    bounds: Bounds
    operands: tuple[Operand, ...]
    result: Operand
    fused: tuple[Fused, ...] = ()
    group: str = ""
    variant: str = "full"
    stage: str = ""
    readers: int = 1

    @property
    def macs(self) -> int:
        return self.bounds.macs

    def by_precision(self, shares: Mapping[int, Fraction]) -> Iterator[Operation]:
        """A product as several, one for each precision of the rows of its first operand; whole if ``shares`` has
        no more than one.
        """
        left = self.bounds
        if len(shares) < 2 or not isinstance(left, Gemm):
            yield self
            return
        rows = left.rows
        for index, (bits, share) in enumerate(shares.items()):
            count = left.rows if index == len(shares) - 1 else round(rows * share)
            if count:
                really, label = Fraction(count, rows), f"{bits} bits"
                yield replace(
                    self,
                    name=f"{self.name} at {label}",
                    bounds=replace(left, rows=count),
                    operands=(self.operands[0].part(label, really, bits), *self.operands[1:]),
                    result=self.result.part(label, really),
                    fused=tuple(_shared(one, label, really) for one in self.fused),
                )
            left = replace(left, rows=left.rows - count)

    def read(self) -> Iterator[Operand]:
        """Every operand, those of fused work included."""
        yield from self.operands
        yield from (fused.operand for fused in self.fused if fused.operand is not None)

    @cached_property
    def nameless(self) -> Hashable:
        """All of it but the names: equal for all that take equally long."""
        fused = ((one.kind, one.operand and one.operand.nameless) for one in self.fused)
        operands = (one.nameless for one in self.operands)
        return self.kind, self.bounds, *operands, self.result.nameless, self.readers, *fused


def _shared(work: Fused, label: str, share: Fraction) -> Fused:
    """The part of fused work that belongs to a share of the rows: a bias is read whole."""
    operand = work.operand
    if operand is None or operand.tensor_class is TensorClass.WEIGHTS:
        return work
    return replace(work, operand=operand.part(label, share))


@dataclass(frozen=True)
class Workload:
    """The operations of every variant, in order, and how often each variant runs."""

    name: str
    variants: Mapping[str, tuple[Operation, ...]]
    rates: Mapping[str, Rate]
    schedule: Mapping[int, tuple[str, ...]]

    def runs(self, steps: int) -> dict[str, int]:
        """How often each variant runs for an image of ``steps`` calls of the model.

        Constants are made when compiling, prompt work once, a table of ``steps`` rows once for each row. Where
        the program has no schedule for so many steps, every step runs "full".
        """
        order = self.schedule.get(steps, ("full",) * steps)
        often = {Rate.CONSTANT: 0, Rate.PROMPT: 1, Rate.STEP: steps}
        return {name: often.get(self.rates[name], order.count(name)) for name in self.variants}

    def macs(self, variant: str = "full") -> int:
        """Multiply-accumulates of one run of a variant."""
        return sum(operation.macs for operation in self.variants[variant])


def followers(operations: Sequence[Operation]) -> dict[str, Operation]:
    """By name of a value: the first normalisation or softmax that reads it, which may run behind what makes it."""
    return {one.operands[0].value: one for one in reversed(operations) if one.kind in SCALED}


def chains(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """The operations, each with what may run behind it, and so on: no chain has a say in how another one runs."""
    behind, made = followers(operations), {one.result.value for one in operations}
    led = {one.result.value for value, one in behind.items() if value in made}
    for operation in operations:
        if operation.result.value not in led:
            chain = [operation]
            while follower := behind.get(chain[-1].result.value):
                chain.append(follower)
            yield tuple(chain)


def moved_once(operations: Iterable[Operation]) -> dict[TensorClass, int]:
    """Bits off the chip if every tensor that a product reads is read once, and every one that it makes written once.

    Whatever happens between products, normalisation, softmax and concatenation, is then done on the way.
    """
    products = [one for one in operations if one.macs]
    written = {one.result.value: one.result for one in products}
    read = {operand.value: operand for one in products for operand in one.read()}
    moved = dict.fromkeys(TensorClass, 0)
    for operand in (*written.values(), *read.values()):
        moved[operand.tensor_class] += operand.size_bits
    return moved
