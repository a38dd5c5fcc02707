"""How weights of few bits become factors: bytes of a packed panel open into vectors of numbers or of words.

A byte holds one code, or two: one for either half of the panel's columns, so that a vector of bytes opens into two
vectors of factors and nothing crosses lanes. Integers are shifted to where their sign is the register's. Small floats
are put in the place of float16 numbers, subnormal ones included, and so come out with that format's bias: the power of
two between it and their own is left to the epilogue. AVX-512 looks up codes of four bits in a register.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from ...ir.formats import Format, IntegerFormat, format_called
from ..packing import codes_a_byte
from ..planning.factors import READ_BIAS, read_power
from .kernel import local

NIBBLE_BITS = 4

Vector = tuple[int, Any, Any]
"""Its number in a row, a buffer of factors, and where in it the vector begins."""

LOOKUP_LANES = 16
"""A register of AVX-512 holds a number for each code of four bits."""


def items_of(name: str | None, count: int) -> int:
    """How many bytes, or words of them, hold so many codes of a format; or so many numbers as they are."""
    return count if name is None else count // codes_a_byte(format_called(name))


def numbers(name: str, codes: Any, place: int, lanes: int, kind: str = "float32") -> Any:
    """A vector of numbers of ``kind`` from int32 words with a code in their lowest byte, there in the upper half for
    ``place`` 1. Those of small floats are to be multiplied by ``read_power``.
    """
    format = format_called(name)
    if format.bits == NIBBLE_BITS and lanes == LOOKUP_LANES and kind == "float32":
        return _looked_up(format, _down(codes, NIBBLE_BITS * place, lanes))
    if isinstance(format, IntegerFormat):
        raised = _up(codes, 32 - format.bits - NIBBLE_BITS * place, lanes)
        return T.Cast(f"{kind}x{lanes}", _down(raised, 32 - format.bits, lanes))
    if place:
        codes = _down(codes, NIBBLE_BITS, lanes)
    size = _only(codes, (1 << format.bits - 1) - 1, lanes)
    if format.exponent_bits < 5:
        sign = _only(_up(codes, 16 - format.bits, lanes), 1 << 15, lanes)
        half = T.bitwise_or(sign, _up(size, 10 - format.mantissa_bits, lanes))
        return T.Cast(f"float32x{lanes}", T.reinterpret(f"float16x{lanes}", T.Cast(f"uint16x{lanes}", half)))
    # Their highest exponent would be float16's infinity.
    sign = _only(_up(codes, 32 - format.bits, lanes), -1 << 31, lanes)
    word = T.bitwise_or(sign, _up(size, 23 - format.mantissa_bits, lanes))
    return T.reinterpret(f"float32x{lanes}", word) * T.Broadcast(T.float32(2.0 ** (127 - READ_BIAS)), lanes)


def raised_bytes(words: Any, place: int, lanes: int) -> Any:
    """Words of four integers of eight bits, ``RAISED_NIBBLE`` times those of four bits in a half of the bytes."""
    return _only(words if place else _up(words, NIBBLE_BITS, lanes), -0x0F0F0F10, lanes)


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
        """The vectors of a row that has ``codes``, as factors, by their numbers: of two in the same bytes both."""
        items = items_of(self.codes, self.width)
        for column in range(0, items, self.lanes):
            read = self.items[T.Ramp(self.start + row * items + column, 1, self.lanes)]
            words = T.bind(read if self.dot else T.Cast(f"int32x{self.lanes}", read))
            for start in range(column, self.width, items):
                yield start // self.lanes, self._factors(words, start // items, row, start)

    def _factors(self, words: Any, place: int, row: Any, start: int) -> Any:
        if self.dot:
            return raised_bytes(words, place, self.lanes)
        assert self.codes is not None
        result = numbers(self.codes, words, place, self.lanes, self.kind)
        if self.scales is None:
            return result
        scales, first, steps, before = self.scales
        at = first + (before + row) // steps * self.width + start
        return result * scales[T.Ramp(at, 1, self.lanes)]
