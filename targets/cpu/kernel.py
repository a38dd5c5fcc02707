"""What every CPU kernel template has in common: a frozen specification that writes itself as TIR."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ..expressions import Expression, Load
from .vector_math import emit, let

LONGEST_BUFFER = 2**31 - 1

WORDS = {"bfloat16": "uint16"}
"""Formats that arithmetic does not know, and the words that hold them."""


@dataclass(frozen=True)
class Kernel(ABC):
    """A specification fully determines its machine code (given a target): equal specifications share a kernel.

    ``dtypes`` are those of the operands, in the order in which they are passed. Kernels compute in float32, but for
    sums of products of integers: what is stored in fewer bits is widened where it is read and rounded by ``store``.
    """

    dtypes: tuple[str, ...]

    @property
    def functions(self) -> str:
        """Functions that the body calls by name, in LLVM's language."""
        return ""

    @abstractmethod
    def body(self, operands: Sequence[Any]) -> None:
        """Write the kernel's loops over its flat operand buffers into the current TIR builder."""

    def prim_func(self, symbol: str) -> tirx.PrimFunc:
        with IRBuilder() as builder:
            with T.prim_func(private=False):
                T.func_name(symbol)
                # Aliasing is ruled out by the memory plan: an output never shares bytes with an input.
                T.func_attr({"tirx.noalias": True})
                kinds = [WORDS.get(dtype, dtype) for dtype in self.dtypes]
                handles = [T.arg(f"p{i}", T.handle(kind)) for i, kind in enumerate(kinds)]
                buffers = [
                    T.decl_buffer([LONGEST_BUFFER], kind, data=handle)
                    for handle, kind in zip(handles, kinds, strict=True)
                ]
                operands = [
                    NARROW[dtype](buffer) if dtype in NARROW else buffer
                    for buffer, dtype in zip(buffers, self.dtypes, strict=True)
                ]
                # Without these two, TVM would ask a runtime for every local array; with them they are on the
                # stack, where LLVM promotes them to registers.
                facts = {"device_id": 0, "device_type": 1, "pragma_import_llvm": self.functions}
                with ExitStack() as said:
                    for name, fact in facts.items():
                        if fact != "":
                            said.enter_context(T.attr(tirx.IntImm("int32", 0), name, fact))
                    self.body(operands)
        return cast(tirx.PrimFunc, builder.get())


@dataclass(frozen=True)
class Bfloat16:
    """An operand of bfloat16 numbers: the upper halves of float32 numbers."""

    words: Any

    def __getitem__(self, at: Any) -> Any:
        return T.reinterpret("float32", T.shift_left(T.cast(self.words[at], "uint32"), T.uint32(16)))


@dataclass(frozen=True)
class Float16:
    """An operand of float16 numbers, read as float32 numbers."""

    words: Any

    def __getitem__(self, at: Any) -> Any:
        return T.cast(self.words[at], "float32")


NARROW = {"bfloat16": Bfloat16, "float16": Float16}
"""How operands in formats of fewer bits are read."""


def bfloat16_bits(value: Any) -> Any:
    """A float32 as uint32, so that its upper half is the nearest bfloat16 (of two, the even one)."""

    def rounded(bits: Any) -> Any:
        odd = T.bitwise_and(T.shift_right(bits, T.uint32(16)), T.uint32(1))
        return bits + T.uint32(0x7FFF) + odd

    return let(T.reinterpret("uint32", value), rounded)


def raw(operand: Any) -> Any:
    """The buffer of an operand, as it lies in memory."""
    return operand.words if isinstance(operand, Bfloat16 | Float16) else operand


def words(operand: Any, dtype: str = "int32") -> Any:
    """An operand of numbers of 8 or 16 bits, as many at a time as a number of ``dtype`` holds."""
    return T.decl_buffer([LONGEST_BUFFER // 4], dtype, data=raw(operand).data)


def store(operand: Any, value: Any, at: Any) -> None:
    """Write a float32 to an operand in the format that it is stored in; whole numbers to one of integers."""
    if isinstance(operand, Bfloat16):
        word = T.cast(T.shift_right(bfloat16_bits(value), T.uint32(16)), "uint16")
        T.buffer_store(operand.words, word, [at])
    else:
        buffer = raw(operand)
        T.buffer_store(buffer, T.cast(value, buffer.dtype), [at])


def local(count: int, dtype: str = "float32") -> Any:
    """An array that lives in registers or on the stack: at most 255 elements."""
    if not 0 < count < 256:
        raise ValueError(f"a local array holds 1 to 255 numbers, not {count}")
    return T.alloc_buffer([count], dtype, scope="global")


def flat(coordinates: Sequence[Any], strides: Sequence[int]) -> Any:
    """``sum(coordinate * stride)``, leaving out what is zero."""
    total: Any = T.int32(0)
    for coordinate, stride in zip(coordinates, strides, strict=True):
        if stride:
            total = total + coordinate * stride
    return total


def evaluate(
    expression: Expression, operands: Sequence[Any], coordinates: Sequence[Any], values: Sequence[Any]
) -> Any:
    """An expression at ``coordinates``; ``values[part]`` is what the kernel computed there."""

    def load(source: Load) -> Any:
        return T.cast(operands[source.operand][flat(coordinates, source.strides)], "float32")

    return emit(expression, load, lambda part: T.cast(values[part], "float32"))


def factors(
    source: Any, starts: Sequence[Any], stride: int, steps: int, by_lane: bool, dtype: str = "float32"
) -> list[Any]:
    """From each start, the scalars at ``steps`` places that are ``stride`` apart: factors[start][step].

    With ``by_lane`` and where they are neighbours, they are loaded as a vector and taken from its lanes.
    """
    if not by_lane or stride != 1 or steps == 1:
        return [[source[start + step * stride] for step in range(steps)] for start in starts]
    found = list[Any]()
    for start in starts:
        held = local(steps, dtype)
        with T.vectorized(0, steps) as lane:
            T.buffer_store(held, T.cast(source[start + lane], dtype), [lane])
        found.append(held)
    return found


def lane_chunks(count: int, lanes: int) -> list[tuple[int, int]]:
    """Cut ``count`` elements into (start, width) pieces: full vectors, then halves, then what is left."""
    chunks: list[tuple[int, int]] = []
    start, width = 0, lanes
    while start < count:
        while width > count - start:
            width //= 2
        chunks.append((start, width))
        start += width
    return chunks


def unflatten(index: Any, extents: Sequence[int]) -> list[Any]:
    """Coordinates of a row-major position."""
    coordinates: list[Any] = []
    for extent in reversed(extents):
        coordinates.insert(0, index % extent)
        index = index // extent
    return coordinates


def reduce_lanes(lanes: Any, width: int, operator: Callable[[Any, Any], Any]) -> Any:
    """All elements of a local array combined pairwise, as one scalar expression."""
    terms = [lanes[lane] for lane in range(width)]
    while len(terms) > 1:
        paired = [operator(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = paired + ([terms[-1]] if len(terms) % 2 else [])
    return terms[0]


def fill(target: Any, width: int, value: float) -> None:
    with T.vectorized(0, width) as lane:
        T.buffer_store(target, T.cast(T.float32(value), target.dtype), [lane])
