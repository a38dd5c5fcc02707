"""How a constant of the program is laid out for the kernels: data, so that new weights can be packed later."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .winograd import transform_filters


class Dense(BaseModel):
    """Row-major, as the program has it."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["dense"] = "dense"

    def pack(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(source)


class Panels(BaseModel):
    """A reduction matrix cut into column panels: [N, K] -> [panels, K, width].

    ``order`` permutes the axes of the source so that output channels come first and the reduction axes follow
    in the order in which the kernel walks them; ``starts`` are the first columns of the panels. The last panel
    starts early and overlaps its neighbour rather than being padded, unless N < width, when zeros fill up.
    With ``parts`` 2, the columns are two halves of a gated layer and each panel holds as many of either.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["panels"] = "panels"
    order: tuple[int, ...]
    width: int
    starts: tuple[int, ...]
    parts: int = 1

    def pack(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.transpose(source, self.order)
        halves = rows.reshape(self.parts, rows.shape[0] // self.parts, -1)
        width = self.width // self.parts
        panels = np.zeros((len(self.starts), halves.shape[2], self.parts, width), dtype=source.dtype)
        for panel, start in zip(panels, self.starts, strict=True):
            block = halves[:, start : start + width]
            panel[:, :, : block.shape[1]] = block.transpose(2, 0, 1)
        return panels.reshape(len(self.starts), halves.shape[2], self.width)


class WinogradPanels(BaseModel):
    """Filters [K, C, 3, 3], transformed for tiles of ``outputs`` squared: [panels, n * n, C, width], with panels as
    ``Panels`` has them.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["winograd"] = "winograd"
    outputs: int
    width: int
    starts: tuple[int, ...]

    def pack(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        filters = transform_filters(source, self.outputs)
        columns, channels, side, _ = filters.shape
        # [n, n, C, K]: a position's matrix as the products take it.
        positions = filters.transpose(2, 3, 1, 0).reshape(side * side, channels, columns)
        panels = np.zeros((len(self.starts), side * side, channels, self.width), dtype=source.dtype)
        for panel, start in zip(panels, self.starts, strict=True):
            block = positions[..., start : start + self.width]
            panel[..., : block.shape[-1]] = block
        return panels


Packing = Annotated[Dense | Panels | WinogradPanels, Field(discriminator="kind")]
