"""Images in a frame of zeros: what planning asks for and every template has to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .lowering import Lowering
from .views import View


@dataclass(frozen=True)
class Framing:
    """[planes, height, width, channels] with the frame, ``image`` (rows, columns) without, and ``before`` the rows and
    columns of zeros that come first; ``in_strides`` are those of (plane, row, column, channel) of what is framed.
    """

    planes: int
    height: int
    width: int
    channels: int
    image: tuple[int, int]
    before: tuple[int, int]
    in_strides: tuple[int, int, int, int]


def framing(lowering: Lowering, x: View, before: Sequence[int], after: Sequence[int]) -> tuple[View, Framing]:
    """Room for x, (N, C, spatial...), in its frame, channels innermost, and how it comes there."""
    framed = [size + a + b for size, a, b in zip(x.shape[2:], before, after, strict=True)]
    out = lowering.fresh((*x.shape[:2], *framed), (0, *range(2, len(x.shape)), 1), *lowering.dtypes([x]))
    single = len(framed) == 1  # a signal is an image of one row
    return out, Framing(
        planes=x.shape[0],
        height=1 if single else framed[0],
        width=framed[-1],
        channels=x.shape[1],
        image=(1 if single else x.shape[2], x.shape[-1]),
        before=(0 if single else before[0], before[-1]),
        in_strides=(x.strides[0], 0 if single else x.strides[2], x.strides[-1], x.strides[1]),
    )
