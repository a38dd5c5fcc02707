"""How a constant of the program is laid out for the kernels: data, so that new weights can be packed later."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ..ir.formats import Format, format_called
from .winograd import transform_filters

TILE_ROWS = 16
"""Rows of a matrix tile's register: of results as of words of factors."""

ROUNDED = ("bfloat16", "float16")
"""Formats that a checkpoint's float32 numbers are rounded to when they are packed."""


def bfloat16_words(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 numbers, of two the even one, as their bits."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    # A number that is none has bits that the sum above would carry over.
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded.astype(np.uint16))


class Layout(BaseModel):
    """``format`` is what the numbers are rounded to, if they are not kept as they are."""

    model_config = ConfigDict(frozen=True)
    format: str | None = None

    @property
    def holds_codes(self) -> bool:
        """Whether bytes of codes stand for the numbers, all of which are of the format already."""
        return self.format is not None and self.format not in ROUNDED

    def pack(self, source: NDArray[Any]) -> NDArray[Any]:
        """The numbers as the kernels find them; a rounded format as its bits."""
        placed = np.ascontiguousarray(self.place(source))
        if self.format == "float16":
            with np.errstate(over="ignore"):  # what is too large is infinite: the bundle's writer says so
                return placed.astype(np.float16)
        return placed if self.format is None else bfloat16_words(placed)

    @abstractmethod
    def place(self, source: NDArray[Any]) -> NDArray[Any]: ...


def codes_a_byte(format: Format) -> int:
    return 8 // format.bits


def raised_by(format: Format) -> int:
    """By how many bits dot products raise an integer, which is opened into the highest of a byte."""
    return 8 - format.bits


def joined(codes: NDArray[np.uint8], format: Format) -> NDArray[np.uint8]:
    """Bytes of several codes: of [panels, steps, columns, ...], each has one of every half or quarter of the columns,
    that of the first in its lowest bits.
    """
    count = codes_a_byte(format)
    shifted = (
        part << np.uint8(place * format.bits) for place, part in enumerate(np.split(codes, count, axis=2))
    )
    return np.bitwise_or.reduce(list(shifted))


class Dense(Layout):
    """Row-major, as the program has it."""

    kind: Literal["dense"] = "dense"

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        return source


class Panels(Layout):
    """A reduction matrix cut into column panels: [N, K] -> [panels, K, width].

    ``order`` permutes the axes of the source so that output channels come first and the reduction axes follow
    in the order in which the kernel walks them; ``starts`` are the first columns of the panels. The last panel
    starts early and overlaps its neighbour rather than being padded, unless N < width, when zeros fill up.
    With ``parts`` 2, the columns are two halves of a gated layer and each panel holds as many of either.

    Of a format of codes the items are bytes, which codes of four bits and of two share (``joined``).
    """

    kind: Literal["panels"] = "panels"
    order: tuple[int, ...]
    width: int
    starts: tuple[int, ...]
    parts: int = 1

    def pack(self, source: NDArray[Any]) -> NDArray[Any]:
        if not self.holds_codes:
            return super().pack(source)
        format = format_called(str(self.format))
        return joined(self.place(format.encode(source)), format)

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        rows = np.transpose(source, self.order)
        halves = rows.reshape(self.parts, rows.shape[0] // self.parts, -1)
        width = self.width // self.parts
        panels = np.zeros((len(self.starts), halves.shape[2], self.parts, width), dtype=source.dtype)
        for panel, start in zip(panels, self.starts, strict=True):
            block = halves[:, start : start + width]
            panel[:, :, : block.shape[1]] = block.transpose(2, 0, 1)
        return panels.reshape(len(self.starts), halves.shape[2], self.width)


class WordPanels(Panels):
    """Panels of narrow numbers, ``together`` reduction indices of a column side by side: [panels, K / together, width,
    together].

    Where every number that integers are multiplied with is ``bias`` too large, a panel is a row of bytes, of which the
    first are the int32 numbers that its columns' sums begin with. Numbers of fewer than eight bits are raised.
    """

    kind: Literal["words"] = "words"
    together: int
    bias: int = 0

    def pack(self, source: NDArray[Any]) -> NDArray[Any]:
        packed = super().pack(source)
        if not self.bias:
            return packed
        counted = self.bias << raised_by(format_called(self.format)) if self.format else self.bias
        begin = -counted * self.place(np.asarray(source, np.int8)).sum(axis=(1, 3), dtype="<i4")
        head = np.ascontiguousarray(begin).view(packed.dtype)
        return np.concatenate([head, packed.reshape(len(packed), -1)], axis=1)

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        panels = super().place(source)
        count, depth, width = panels.shape
        return panels.reshape(count, depth // self.together, self.together, width).transpose(0, 1, 3, 2)


class TilePanels(Panels):
    """Panels of two matrix tiles: [panels, steps, 2, words, 16, together], where a tile's row holds for each of 16
    columns the reduction indices that share a word, and a step is as many words as a tile has rows.
    """

    kind: Literal["tiles"] = "tiles"
    together: int = 2

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        panels = super().place(source)
        count, depth, width = panels.shape
        steps = panels.reshape(
            count, depth // (self.together * TILE_ROWS), TILE_ROWS, self.together, 2, width // 2
        )
        return steps.transpose(0, 1, 4, 2, 5, 3)


class WinogradPanels(Layout):
    """Filters [K, C, 3, 3], transformed for tiles of ``outputs`` squared: [n * n, panels, C, width], with panels as
    ``Panels`` has them.
    """

    kind: Literal["winograd"] = "winograd"
    outputs: int
    width: int
    starts: tuple[int, ...]

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        filters = transform_filters(source, self.outputs)
        columns, channels, side, _ = filters.shape
        # [n, n, C, K]: a position's matrix as the products take it.
        positions = filters.transpose(2, 3, 1, 0).reshape(side * side, channels, columns)
        panels = np.zeros((side * side, len(self.starts), channels, self.width), dtype=source.dtype)
        for panel, start in enumerate(self.starts):
            block = positions[..., start : start + self.width]
            panels[:, panel, :, : block.shape[-1]] = block
        return panels


class WinogradPairs(WinogradPanels):
    """The same with two channels of a column together: [n * n, panels, C / 2, width, 2]."""

    kind: Literal["winograd-pairs"] = "winograd-pairs"

    def place(self, source: NDArray[Any]) -> NDArray[Any]:
        panels = super().place(source)
        positions, count, channels, width = panels.shape
        return panels.reshape(positions, count, channels // 2, 2, width).swapaxes(3, 4)


Packing = Annotated[
    Dense | Panels | WordPanels | TilePanels | WinogradPanels | WinogradPairs, Field(discriminator="kind")
]
