"""How a constant of the program is laid out for the kernels: data, so that new weights can be packed later."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


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
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["panels"] = "panels"
    order: tuple[int, ...]
    width: int
    starts: tuple[int, ...]

    def pack(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.transpose(source, self.order)
        rows = rows.reshape(rows.shape[0], -1)
        panels = np.zeros((len(self.starts), rows.shape[1], self.width), dtype=source.dtype)
        for panel, start in zip(panels, self.starts, strict=True):
            block = rows[start : start + self.width]
            panel[:, : block.shape[0]] = block.T
        return panels


Packing = Annotated[Dense | Panels, Field(discriminator="kind")]
