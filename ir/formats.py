"""Number formats of few bits: which numbers there are, what is rounded to them, and the codes that stand for them.

Small floats have a sign, an exponent and a mantissa, subnormal numbers, and neither infinities nor NaN: every code is a
number, and what is too large becomes the largest (E4M3 and E5M2 as such storage differ so from Micikevicius et al.,
arXiv 2209.05433, which gives codes to NaN). Integers are symmetric, in two's complement.

A value whose numbers are all of a format says so by the metadata ``FORMAT``; the type that the referee computes with
may be wider.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FORMAT = "fick.format"
"""On a constant whose numbers are all of the format of this name."""


@dataclass(frozen=True)
class IntegerFormat:
    """Whole numbers of ``bits`` bits."""

    bits: int

    @property
    def name(self) -> str:
        return f"int{self.bits}"

    @property
    def smallest(self) -> int:
        return -(1 << self.bits - 1)

    @property
    def largest(self) -> int:
        return (1 << self.bits - 1) - 1

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Each code's number."""
        codes = np.arange(1 << self.bits)
        return np.where(codes > self.largest, codes - (1 << self.bits), codes).astype(np.float32)

    def rounded(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The nearest numbers of the format, of two the even one; too large ones become its ends."""
        return np.clip(np.rint(numbers), self.smallest, self.largest)

    def encode(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes of numbers of the format. Raises ValueError for any other."""
        return _encoded(
            self, numbers, np.asarray(numbers, np.float32).astype(np.int32) & (1 << self.bits) - 1
        )

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.values[codes]


@dataclass(frozen=True)
class FloatFormat:
    """Numbers (-1)^s 2^(e - bias) (1 + m / 2^mantissa_bits), and for e = 0 (-1)^s 2^(1 - bias) m / 2^mantissa_bits."""

    exponent_bits: int
    mantissa_bits: int
    bias: int

    @staticmethod
    def of(exponent_bits: int, mantissa_bits: int) -> FloatFormat:
        """With the bias that IEEE 754 would give it."""
        return FloatFormat(exponent_bits, mantissa_bits, (1 << exponent_bits - 1) - 1)

    @property
    def name(self) -> str:
        """Such as e4m3, and e4m3b11 where the bias is not the usual one."""
        usual = self.bias == self.of(self.exponent_bits, self.mantissa_bits).bias
        return f"e{self.exponent_bits}m{self.mantissa_bits}" + ("" if usual else f"b{self.bias}")

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def largest(self) -> float:
        return float(self.values[(1 << self.bits - 1) - 1])

    @property
    def smallest(self) -> float:
        return -self.largest

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Each code's number: sign, exponent, mantissa from the highest bit on."""
        codes = np.arange(1 << self.bits)
        exponent = codes >> self.mantissa_bits & (1 << self.exponent_bits) - 1
        mantissa = codes & (1 << self.mantissa_bits) - 1
        whole = np.where(exponent > 0, mantissa + (1 << self.mantissa_bits), mantissa)
        size = np.ldexp(whole.astype(np.float32), np.maximum(exponent, 1) - self.bias - self.mantissa_bits)
        return np.where(codes >> self.bits - 1, -size, size).astype(np.float32)

    def rounded(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """The nearest numbers of the format, of two the one with an even code; too large ones become the largest."""
        given = np.asarray(numbers)
        given = np.clip(
            given if given.dtype == np.float32 else given.astype(np.float64), self.smallest, self.largest
        )
        size = np.abs(given)
        # A sum whose last bit is the last that the format keeps rounds as the format does.
        power = 2.0 ** (int(np.finfo(given.dtype).nmant) - self.mantissa_bits)
        raised = np.maximum(size, 2.0 ** (1 - self.bias)) * power
        return np.copysign(size + raised - raised, given).astype(np.float32)

    def encode(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes of numbers of the format. Raises ValueError for any other."""
        wide = np.asarray(numbers, np.float64)
        positive = self.values[: 1 << self.bits - 1].astype(np.float64)
        size = np.minimum(np.searchsorted(positive, np.abs(wide)), positive.size - 1)
        return _encoded(self, numbers, size | np.signbit(wide).astype(np.int64) << self.bits - 1)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.values[codes]


Format = IntegerFormat | FloatFormat

INTEGERS = {one.name: one for one in (IntegerFormat(bits) for bits in (8, 4, 2))}

FLOATS = {
    one.name: one
    for one in (FloatFormat.of(e, m) for e, m in ((2, 5), (3, 4), (4, 3), (5, 2), (2, 1), (1, 2)))
}
"""Of eight bits, and of four."""


def format_called(name: str) -> Format:
    """The format of a name: int4, e4m3, or e2m1b3 with a bias of its own. Raises ValueError for another name."""
    if name in INTEGERS:
        return INTEGERS[name]
    if (found := re.fullmatch(r"e([1-5])m([1-5])(?:b(-?\d+))?", name)) is None:
        raise ValueError(f"there is no number format {name!r}")
    usual = FloatFormat.of(int(found[1]), int(found[2]))
    return usual if found[3] is None else FloatFormat(usual.exponent_bits, usual.mantissa_bits, int(found[3]))


def format_of(value: ir.Value) -> Format | None:
    """The format that a constant is marked with."""
    name = value.metadata_props.get(FORMAT)
    return None if name is None else format_called(name)


def opens(node: ir.Node) -> bool:
    """Whether a node only says what codes stand for: by scales, numbers that are kept in a narrower format."""
    if node.op_type == "Mul":
        return any(value is not None and FORMAT in value.metadata_props for value in node.inputs)
    return node.op_type == "DequantizeLinear"


def attends_integers(node: ir.Node) -> bool:
    """Whether queries, keys and values of Attention are integers of eight bits, each times a single number."""
    if node.op_type != "Attention":
        return False
    sources = [None if value is None else value.producer() for value in node.inputs[:3]]
    return all(source is not None and _opens_by_one_scale(source) for source in sources)


def _opens_by_one_scale(node: ir.Node) -> bool:
    if node.op_type != "DequantizeLinear" or any(value is not None for value in node.inputs[2:]):
        return False
    codes, scale = node.inputs[:2]
    assert codes is not None and scale is not None
    return codes.dtype is ir.DataType.INT8 and scale.shape is not None and scale.shape.numpy() == ()


def mark(value: ir.Value, format: Format) -> None:
    """Say that all numbers of a constant are of the format."""
    value.metadata_props[FORMAT] = format.name


def as_float32(tensor: ir.TensorProtocol) -> NDArray[np.float32]:
    """The numbers of a tensor as kernels compute with them.

    A finite one beyond float32's range, such as float64's lowest in a mask, becomes the last within it.
    """
    numbers: NDArray[Any] = tensor.numpy()
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32, copy=False)
    beyond = np.isinf(narrow) & np.isfinite(numbers)
    return np.where(beyond, np.copysign(np.finfo(np.float32).max, narrow), narrow) if beyond.any() else narrow


def _encoded(format: Format, numbers: NDArray[Any], codes: NDArray[Any]) -> NDArray[np.uint8]:
    found = codes.astype(np.uint8)
    if not np.array_equal(format.values[found], np.asarray(numbers, np.float32)):
        raise ValueError(f"not all of the numbers are of the format {format.name}")
    return found
