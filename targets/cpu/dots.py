"""How a step of a reduction adds products to a vector of sums: one product a sum, or dot products of a word's numbers.

A word holds neighbours of the reduction, four integers or two bfloat16 numbers, for every column a word of its own
(``WordPanels``), so that what one instruction adds to a sum is what lies in its lane. An instruction for matrices takes
words of twice the length, of half the columns and of two rows: a register then holds sums of both rows, and
``rows_of_lanes`` takes them apart at the end. Sums of integers are exact; those of bfloat16 numbers are float32, of
products that are exact in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from .kernel import factors, lane_chunks, local

BIAS = 128
"""What the instruction that takes a number without sign gets besides a number with one."""

BIASED_WORD = -0x7F7F7F80
"""A word of four times 128, as a number with a sign."""

BFLOAT16_DOT = "fick_bfloat16_dot"
BFLOAT16_LANES = "fick_bfloat16_lanes"


def _vpdpbusd(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """AVX512-VNNI and AVX-VNNI. Left factors have no sign: what they have too much is in what sums begin with."""
    biased = T.bitwise_xor(left, T.Broadcast(T.int32(BIASED_WORD), lanes))
    name, kind = f"x86.avx512.vpdpbusd.{32 * lanes}", f"int8x{4 * lanes}"
    return _call(f"int32x{lanes}", name, total, T.reinterpret(kind, biased), T.reinterpret(kind, right))


def _pmaddwd(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """AVX2 and AVX-512: two pairs of products of 16-bit numbers, which hold the even and the odd bytes."""
    name = {8: "x86.avx2.pmadd.wd", 16: "x86.avx512.pmaddw.d.512"}[lanes]
    for halves in (_even_bytes, _odd_bytes):
        total = total + _call(f"int32x{lanes}", name, halves(left, lanes), halves(right, lanes))
    return total


def _sdot(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """Armv8.4-A's dot product, an extension of Armv8.2-A. LLVM takes the last factor, no other, from a lane."""
    return _of_bytes("aarch64.neon.sdot", total, right, left, lanes)


def _smmla(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """Armv8.6-A's product of matrices, an extension of Armv8.2-A: two rows of eight bytes by two columns."""
    return _of_bytes(f"aarch64.neon.smmla.v{lanes}i32.v{4 * lanes}i8", total, left, right, lanes)


def _shifts(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """For any vector unit: bytes become words by shifting."""

    def byte(word: Any, place: int) -> Any:
        raised = T.shift_left(word, T.Broadcast(T.int32(8 * (3 - place)), lanes))
        return T.shift_right(raised, T.Broadcast(T.int32(24), lanes))

    for place in range(4):
        total = total + byte(left, place) * byte(right, place)
    return total


def _bfloat16(total: Any, left: Any, right: Any, lanes: int) -> Any:
    return T.call_pure_extern(f"float32x{lanes}", BFLOAT16_DOT, total, left, right)


def _bfdot(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """As with ``sdot``, the last factor is what may come from a lane."""
    return _bfloat16(total, right, left, lanes)


def _even_bytes(words: Any, lanes: int) -> Any:
    eight = T.Broadcast(T.int16(8), 2 * lanes)
    return T.shift_right(T.shift_left(T.reinterpret(f"int16x{2 * lanes}", words), eight), eight)


def _odd_bytes(words: Any, lanes: int) -> Any:
    return T.shift_right(T.reinterpret(f"int16x{2 * lanes}", words), T.Broadcast(T.int16(8), 2 * lanes))


def _of_bytes(name: str, total: Any, left: Any, right: Any, lanes: int) -> Any:
    kind = f"int8x{4 * lanes}"
    return _call(f"int32x{lanes}", name, total, T.reinterpret(kind, left), T.reinterpret(kind, right))


def _call(kind: str, name: str, *arguments: Any) -> Any:
    return T.call_llvm_pure_intrin(kind, f"llvm.{name}", *arguments)


@dataclass(frozen=True)
class Dot:
    """``together`` is how many products it adds to a sum of ``sums_dtype``, ``bias`` what left factors are raised by,
    ``held`` how many registers a vector of factors takes, and ``intrinsic`` LLVM's name of it where TVM has no type for
    its factors. A register has sums of ``rows`` rows, one after the other; ``otherwise`` is what takes fewer rows or a
    reduction that does not divide into its words. ``fenced`` says that LLVM takes left factors from lanes of a register
    only where it knows the register for one of the instruction's numbers.
    """

    add: Callable[[Any, Any, Any, int], Any]
    together: int = 4
    sums_dtype: str = "int32"
    bias: int = 0
    held: int = 1
    intrinsic: str | None = None
    rows: int = 1
    otherwise: str | None = None
    fenced: bool = False

    @property
    def word(self) -> str:
        """A step of a row or of a column: as many bits as a register has for its sums."""
        return f"int{32 * self.rows}"

    def function(self, lanes: int) -> str:
        """What a kernel that uses it calls, in LLVM's language."""
        if self.intrinsic is None:
            return ""
        sums, words, numbers = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{2 * lanes} x bfloat>"
        return f"""{_fences(lanes) if self.fenced else ""}
            declare {sums} @{self.intrinsic}({sums}, {numbers}, {numbers})
            define {sums} @{BFLOAT16_DOT}({sums} %total, {words} %a, {words} %b) alwaysinline {{
              %left = bitcast {words} %a to {numbers}
              %right = bitcast {words} %b to {numbers}
              %sum = call {sums} @{self.intrinsic}({sums} %total, {numbers} %left, {numbers} %right)
              ret {sums} %sum
            }}"""


DOTS = {
    "vpdpbusd": Dot(_vpdpbusd, bias=BIAS),
    "pmaddwd": Dot(_pmaddwd, held=2),
    "sdot": Dot(_sdot),
    "smmla": Dot(_smmla, together=8, rows=2, otherwise="sdot"),
    "shifts": Dot(_shifts, held=2),
    # AVX512-BF16: numbers below the smallest normal one count as zero.
    "vdpbf16ps": Dot(_bfloat16, 2, "float32", intrinsic="llvm.x86.avx512bf16.dpbf16ps.512"),
    # Armv8.6-A, an extension of Armv8.2-A.
    "bfdot": Dot(_bfdot, 2, "float32", intrinsic="llvm.aarch64.neon.bfdot.v4f32.v8bf16", fenced=True),
}
"""By the name that a profile has for them."""


def _fences(lanes: int) -> str:
    """Functions that return the words that they get, as many as fill a register of ``lanes`` or half of it.

    What is loaded as numbers and taken apart as words LLVM 22 loads as words, which bfdot takes from no lane. A fence
    between the two, which is no instruction, leaves them numbers.
    """
    words, numbers = f"<{lanes} x i32>", f"<{2 * lanes} x bfloat>"
    fence = f"@llvm.arithmetic.fence.v{2 * lanes}bf16"
    functions = [f"declare {numbers} {fence}({numbers})"]
    for width in (lanes, lanes // 2):
        some, places = f"<{width} x i32>", [f"i32 {lane}" for lane in range(width)]
        widened = places + ["i32 poison"] * (lanes - width)
        functions.append(f"""
            define {some} @{BFLOAT16_LANES}_{width}({some} %some) alwaysinline {{
              %words = shufflevector {some} %some, {some} poison, {words} <{", ".join(widened)}>
              %loaded = bitcast {words} %words to {numbers}
              %numbers = call {numbers} {fence}({numbers} %loaded)
              %same = bitcast {numbers} %numbers to {words}
              %taken = shufflevector {words} %same, {words} poison, {some} <{", ".join(places)}>
              ret {some} %taken
            }}""")
    return "".join(functions)


def left_factors(
    source: Any,
    starts: Sequence[Any],
    stride: int,
    steps: int,
    by_lane: bool,
    dot: str | None,
    kind: str,
    lanes: int,
) -> list[Any]:
    """As ``factors``, of numbers of ``kind`` or of words for dot products."""
    word = kind if dot is None else DOTS[dot].word
    if dot is None or not (DOTS[dot].fenced and by_lane and stride == 1 and steps > 1):
        return factors(source, starts, stride, steps, by_lane, word)
    found = list[Any]()
    for start in starts:
        held = local(steps, word)
        for first, width in lane_chunks(steps, lanes):
            with T.vectorized(0, width) as lane:
                T.buffer_store(held, source[start + first + lane], [first + lane])
            if width > 1:
                register = T.Ramp(first, 1, width)
                fenced = T.call_pure_extern(f"{word}x{width}", f"{BFLOAT16_LANES}_{width}", held[register])
                T.buffer_store(held, fenced, [register])
        found.append(held)
    return found


def add_products(
    sums: Any, lefts: Sequence[Any], panel: Any, at: Any, lanes: int, dot: str | None, kind: str
) -> None:
    """sums[lane] += left * panel[at + lane], in numbers of ``kind`` or as dot products.

    ``lefts`` are of the rows that share these sums.
    """
    if dot is None:
        with T.vectorized(0, lanes) as lane:
            product = T.cast(lefts[0], kind) * T.cast(panel[at + lane], kind)
            T.buffer_store(sums, sums[lane] + product, [lane])
        return
    whole, right = T.Ramp(0, 1, lanes), panel[T.Ramp(at, 1, lanes)]
    T.buffer_store(sums, DOTS[dot].add(sums[whole], _side_by_side(lefts, lanes), right, lanes), [whole])


def _side_by_side(lefts: Sequence[Any], lanes: int) -> Any:
    """A register of the rows' words."""
    if len(lefts) == 1:
        return T.Broadcast(lefts[0], lanes)
    order = [T.int32(row) for row in range(len(lefts))]
    return T.reinterpret(f"int32x{lanes}", T.Shuffle(list(lefts), order))


def rows_of_lanes(registers: Sequence[Any], rows: int, lanes: int) -> list[list[Any]]:
    """Of registers of sums, neighbours each of which has some columns of all rows, each row's own vectors."""
    if rows == 1:
        return [list(registers)]
    each, found = lanes // rows, [list[Any]() for _ in range(rows)]
    for first in range(0, len(registers), rows):
        joined = [one[T.Ramp(0, 1, lanes)] for one in registers[first : first + rows]]
        for row, vectors in enumerate(found):
            places = [
                T.int32(index * lanes + row * each + column)
                for index in range(len(joined))
                for column in range(each)
            ]
            vector = local(len(places), registers[0].dtype)
            T.buffer_store(vector, T.Shuffle(joined, places), [T.Ramp(0, 1, len(places))])
            vectors.append(vector)
    return found
