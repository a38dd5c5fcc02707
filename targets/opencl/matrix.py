"""The matrix that products have on their right, as it is read: from a buffer or an image, numbers or their codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..compiled import Texels, Texture
from ..profile import GpuProfile
from .text import Code, kind

CHANNELS = 4
"""Of a texel, and so the columns that are read at once."""

TOGETHER = 4
"""Steps of the reduction whose int8 factors share a word."""

Opening = Literal["floats", "halves", "integers", "words"]
"""What products take: floats, half floats as they lie, integers one by one, or words of four int8."""

TEXELS: dict[str, Texels] = {
    "float32": "float32", "float16": "float16", "bfloat16": "uint16", "int8": "int8", "uint8": "uint8",
}  # fmt: skip
"""By what the matrix is stored in; four words are a texel of "uint32"."""

TEXEL_BYTES: dict[Texels, int] = {
    "float32": 4, "float16": 2, "uint16": 2, "int8": 1, "uint8": 1, "uint32": 4,
}  # fmt: skip
"""Of a channel."""


@dataclass(frozen=True)
class Matrix:
    """[depth, parts, width] of ``dtype``, the kernel's operand 1, read ``lanes`` columns at a time.

    ``codes``    "int4", where bytes hold two codes: of either half of a row
    ``opening``  what is made of what is read; of "words" it is [depth / 4, parts, width, 4]
    ``texture``  the image that it is, if it is none of a buffer
    """

    dtype: str
    parts: int
    width: int
    lanes: int
    opening: Opening
    codes: str | None
    texture: Texture | None

    def load(self, code: Code, row: str, part: int) -> str:
        """A row's vector from ``column`` on; of words, ``row`` is the first of the four steps that lie in them."""
        place = f"column + {part * self.width}" if part else "column"
        if self.codes is not None:
            return self._opened(row, place)
        if self.opening == "words":
            row = f"({row}) / {TOGETHER}"
        if self.texture is not None:
            return self._texel(row, place)
        at = f"({row}) * {self.parts * self.width} + {place}"
        if self.opening == "halves":
            return f"LOAD_H4(p1, {at})"
        if self.opening == "floats":
            return code.load(1, at, self.lanes)
        if self.opening == "words":
            return self._vector("(__global int *)p1", at)
        return f"convert_{kind(self.lanes, 'int')}({self._vector('p1', at)})"

    def _vector(self, pointer: str, at: str) -> str:
        return f"vload{self.lanes}(0, {pointer} + {at})" if self.lanes > 1 else f"({pointer})[{at}]"

    def _opened(self, row: str, place: str) -> str:
        """Codes of four bits, from whichever half of their bytes."""
        half, integers = self.parts * self.width // 2, kind(self.lanes, "int")
        column = f"({place}) % {half}"
        if self.texture is not None:
            read = f"as_int4(read_imageui(p1, {self._coordinates(row, column)}))"
        else:
            read = f"convert_{integers}({self._vector('p1', f'({row}) * {half} + {column}')})"
        opened = f"({read} << (({place}) < {half} ? 28 : 24) >> 28)"
        return opened if self.opening == "integers" else f"convert_{kind(self.lanes)}({opened})"

    def _texel(self, row: str, place: str) -> str:
        at = self._coordinates(row, place)
        if self.opening == "words":
            return f"as_int4(read_imageui(p1, {at}))"
        if self.opening == "halves":
            return f"TEXEL_H4(p1, {at})"
        match self.dtype:
            case "int8":
                integers = f"read_imagei(p1, {at})"
                return integers if self.opening == "integers" else f"convert_float4({integers})"
            case "bfloat16":
                return f"as_float4(read_imageui(p1, {at}) << 16)"
            case _:
                return f"read_imagef(p1, {at})"

    def _coordinates(self, row: str, place: str) -> str:
        assert self.texture is not None
        across, strip = f"({place}) / {CHANNELS}", self.texture.strip
        if self.texture.rows <= strip:
            return f"(int2)({across}, {row})"
        shift = strip.bit_length() - 1
        return f"(int2)({across} + (({row}) >> {shift}) * {self.texture.width}, ({row}) & {strip - 1})"


def texture(
    dtype: str, rows: int, items: int, lanes: int, opening: Opening, profile: GpuProfile
) -> Texture | None:
    """How a matrix of so many ``items`` a row (bytes of codes, words) is read as an image, if the profile says so."""
    if not profile.images or lanes != CHANNELS or items % CHANNELS:
        return None
    texels: Texels = "uint32" if opening == "words" else TEXELS[dtype]
    # A row's strip and its place there are then its upper and its lower bits.
    tallest = 1 << (profile.image_side.bit_length() - 1)
    image = Texture(texels, items // CHANNELS, rows, rows if rows <= profile.image_side else tallest)
    fits = (
        max(image.size) <= profile.image_side and rows * items * TEXEL_BYTES[texels] <= profile.buffer_bytes
    )
    return image if fits else None
