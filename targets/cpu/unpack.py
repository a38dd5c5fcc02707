"""How weights of few bits become factors: bytes of a packed panel open into vectors of numbers or of words.

A byte holds one code, or two or four: one for each half or quarter of the panel's columns, so that a vector of bytes
opens into as many vectors of factors and nothing crosses lanes. Integers are shifted to where their sign is the
register's. Small floats are put in the place of float16 numbers, subnormal ones included, and so come out with that
format's bias: the power of two between it and their own is left to the epilogue. AVX-512 looks up codes of four bits in
a register.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from ...ir.formats import Format, IntegerFormat, format_called
from ..packing import codes_a_byte, raised_by
from ..planning.factors import READ_BIAS, read_power
from .kernel import local

Vector = tuple[int, Any, Any]
"""Its number in a row, a buffer of factors, and where in it the vector begins."""

LOOKUP_BITS, LOOKUP_LANES = 4, 16
"""A register of AVX-512 holds a number for each code of four bits."""


def codes_together(name: str | None) -> int:
    """How many codes of a format share a byte; one, of numbers as they are."""
    return 1 if name is None else codes_a_byte(format_called(name))


def items_of(name: str | None, count: int) -> int:
    """How many bytes, or words of them, hold so many codes of a format; or so many numbers as they are."""
    return count // codes_together(name)


def numbers(name: str, codes: Any, place: int, lanes: int, kind: str = "float32") -> Any:
    """A vector of numbers of ``kind`` from int32 words with codes in their lowest byte, of which they are those at
    ``place``, counted from the lowest bits. Those of small floats are to be multiplied by ``read_power``.
    """
    format = format_called(name)
    below = place * format.bits
    if format.bits == LOOKUP_BITS and lanes == LOOKUP_LANES and kind == "float32":
        return _looked_up(format, _down(codes, below, lanes))
    if isinstance(format, IntegerFormat):
        raised = _up(codes, 32 - format.bits - below, lanes)
        return T.Cast(f"{kind}x{lanes}", _down(raised, 32 - format.bits, lanes))
    codes = _down(codes, below, lanes)
    size = _only(codes, (1 << format.bits - 1) - 1, lanes)
    if format.exponent_bits < 5:
        sign = _only(_up(codes, 16 - format.bits, lanes), 1 << 15, lanes)
        half = T.bitwise_or(sign, _up(size, 10 - format.mantissa_bits, lanes))
        return T.Cast(f"float32x{lanes}", T.reinterpret(f"float16x{lanes}", T.Cast(f"uint16x{lanes}", half)))
    # Their highest exponent would be float16's infinity.
    sign = _only(_up(codes, 32 - format.bits, lanes), -1 << 31, lanes)
    word = T.bitwise_or(sign, _up(size, 23 - format.mantissa_bits, lanes))
    return T.reinterpret(f"float32x{lanes}", word) * T.Broadcast(T.float32(2.0 ** (127 - READ_BIAS)), lanes)


def raised_bytes(name: str, words: Any, place: int, lanes: int) -> Any:
    """Words of four bytes, in whose highest bits are the codes at ``place`` of integers in the words' bytes."""
    format = format_called(name)
    highest = -1 << raised_by(format) & 0xFF
    mask = int.from_bytes(bytes(4 * [highest]), "little", signed=True)
    return _only(_up(words, raised_by(format) - place * format.bits, lanes), mask, lanes)


def _looked_up(format: Format, codes: Any) -> Any:
    values = [T.float32(float(one)) for one in format.values / np.float32(read_power(format.name))]
    table = T.Shuffle(values, [T.int32(index) for index in range(LOOKUP_LANES)])
    name = "llvm.x86.avx512.permvar.sf.512"
    return T.call_llvm_pure_intrin(f"float32x{LOOKUP_LANES}", name, table, codes)


def _up(words: Any, bits: int, lanes: int) -> Any:
    return T.shift_left(words, T.Broadcast(T.int32(bits), lanes)) if bits else words


def _down(words: Any, bits: int, lanes: int) -> Any:
    return T.shift_right(words, T.Broadcast(T.int32(bits), lanes)) if bits else words


def _only(words: Any, mask: int, lanes: int) -> Any:
    return T.bitwise_and(words, T.Broadcast(T.int32(mask), lanes))


@dataclass(frozen=True)
class Rows:
    """What the steps of a reduction multiply: rows of ``width`` factors, or words of factors, from item ``start`` on.

    With ``codes`` items are bytes that hold codes of the format, or where factors are words for dot products, words of
    such bytes. ``scales``, if any, are numbers to multiply with: a buffer, where its rows begin, how many steps share a
    row, and the number of the first step.
    """

    items: Any
    start: Any
    width: int
    lanes: int
    kind: str
    codes: str | None = None
    dot: bool = False
    scales: tuple[Any, Any, int, Any] | None = None

    def vectors(self, row: Any) -> Iterator[Vector]:
        """The vectors of a row; those of codes are opened as they are asked for, so that few registers hold factors."""
        if self.codes is None:
            for index, start in enumerate(range(0, self.width, self.lanes)):
                yield index, self.items, self.start + row * self.width + start
            return
        for index, factors in self.opened(row):
            held = local(self.lanes, self.kind)
            T.buffer_store(held, factors, [T.Ramp(0, 1, self.lanes)])
            yield index, held, T.int32(0)

    def opened(self, row: Any) -> Iterator[tuple[int, Any]]:
        """The vectors of a row that has ``codes``, as factors, by their numbers: of several in the same bytes all."""
        items = items_of(self.codes, self.width)
        for column in range(0, items, self.lanes):
            read = self.items[T.Ramp(self.start + row * items + column, 1, self.lanes)]
            words = T.bind(read if self.dot else T.Cast(f"int32x{self.lanes}", read))
            for start in range(column, self.width, items):
                yield start // self.lanes, self._factors(words, start // items, row, start)

    def _factors(self, words: Any, place: int, row: Any, start: int) -> Any:
        assert self.codes is not None
        if self.dot:
            return raised_bytes(self.codes, words, place, self.lanes)
        result = numbers(self.codes, words, place, self.lanes, self.kind)
        if self.scales is None:
            return result
        scales, first, steps, before = self.scales
        at = first + (before + row) // steps * self.width + start
        return result * scales[T.Ramp(at, 1, self.lanes)]
