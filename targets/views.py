"""Strided views: how a tensor of the program lies in memory.

A view maps logical coordinates to elements of a buffer by one affine form. Transpose, Reshape, Split, Slice,
Squeeze, Unsqueeze and Expand are free as long as strides can express them; where they cannot, the caller
copies. This is what makes channels-last a matter of strides and not of the graph: a convolution's output,
read through a view, is the token matrix that attention wants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class View:
    """``shape`` logical extents over ``buffer``; element (c0, c1, ...) is at ``offset + sum(ci * strides[i])``."""

    buffer: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @staticmethod
    def dense(buffer: str, shape: Sequence[int], order: Sequence[int] | None = None) -> View:
        """A gapless view whose axes lie in memory in ``order``, outermost first (row-major by default)."""
        strides = [0] * len(shape)
        step = 1
        for axis in reversed(range(len(shape)) if order is None else order):
            strides[axis] = step
            step *= shape[axis]
        return View(buffer, tuple(shape), tuple(strides))

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def distinct(self) -> int:
        """Elements that it reaches, however often."""
        return math.prod(size for size, stride in zip(self.shape, self.strides, strict=True) if stride)

    def order(self) -> tuple[int, ...]:
        """The axes, outermost in memory first."""
        return tuple(sorted(range(len(self.shape)), key=lambda axis: (-self.strides[axis], axis)))

    def transpose(self, permutation: Sequence[int]) -> View:
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in permutation),
            strides=tuple(self.strides[axis] for axis in permutation),
        )

    def slice(self, axis: int, start: int, extent: int, step: int = 1) -> View:
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = extent, strides[axis] * step
        return View(self.buffer, tuple(shape), tuple(strides), offset)

    def expand(self, shape: Sequence[int]) -> View:
        """Broadcast to ``shape`` by NumPy's rule: new and repeated axes get stride 0."""
        missing = len(shape) - len(self.shape)
        extents = (1,) * missing + self.shape
        steps = (0,) * missing + self.strides
        strides = tuple(
            step if extent == wanted else 0
            for extent, step, wanted in zip(extents, steps, shape, strict=True)
        )
        return replace(self, shape=tuple(shape), strides=strides)

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in row-major logical order under another shape, or None if strides cannot say so.

        Both shapes are cut into the shortest runs of axes with equal products; within a run the old axes must
        merge into one evenly spaced axis, which the new axes then divide.
        """
        old = [(extent, step) for extent, step in zip(self.shape, self.strides, strict=True) if extent != 1]
        strides: list[int] = []
        position = 0
        pending: list[int] = []
        taken = wanted = 1
        run: list[tuple[int, int]] = []
        for extent in shape:
            if extent == 1:
                pending.append(extent)
                continue
            pending.append(extent)
            wanted *= extent
            while taken < wanted and position < len(old):
                run.append(old[position])
                taken *= old[position][0]
                position += 1
            if taken == wanted:
                step = _merged_step(run)
                if step is None:
                    return None
                strides += _divide(pending, step)
                pending, run, taken, wanted = [], [], 1, 1
        strides += [0] * len(pending)
        return replace(self, shape=tuple(shape), strides=tuple(strides))

    def is_dense_in(self, order: Sequence[int]) -> bool:
        """Whether the elements lie without gaps in the given axis order."""
        expected = View.dense(self.buffer, self.shape, order).strides
        return all(
            extent == 1 or step == wanted
            for extent, step, wanted in zip(self.shape, self.strides, expected, strict=True)
        )


def _merged_step(run: Sequence[tuple[int, int]]) -> int | None:
    """The spacing of the single axis that a run of (extent, step) axes forms, or None if it is uneven."""
    for (_, outer), (extent, inner) in pairwise(run):
        if outer != extent * inner:
            return None
    return run[-1][1] if run else 0


def _divide(extents: Sequence[int], step: int) -> list[int]:
    """Strides of ``extents`` laid row-major over an axis with spacing ``step``."""
    strides: list[int] = []
    for extent in reversed(extents):
        strides.append(step)
        step *= extent
    return strides[::-1]


def merge_axes(
    extents: Sequence[int], operands: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Fold neighbouring loop axes into one wherever every operand's strides allow; drop axes of extent 1."""
    kept: list[int] = []
    strides: list[list[int]] = [[] for _ in operands]
    for axis, extent in enumerate(extents):
        if extent == 1:
            continue
        if kept and all(
            done[-1] == operand[axis] * extent for done, operand in zip(strides, operands, strict=True)
        ):
            kept[-1] *= extent
            for done, operand in zip(strides, operands, strict=True):
                done[-1] = operand[axis]
        else:
            kept.append(extent)
            for done, operand in zip(strides, operands, strict=True):
                done.append(operand[axis])
    if not kept:
        return (1,), [(0,) for _ in operands]
    return tuple(kept), [tuple(done) for done in strides]


def merged(views: Sequence[View], axes: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Loops over these ``axes`` of the first view, and the strides of all along them, as ``merge_axes`` folds them."""
    return merge_axes(
        [views[0].shape[axis] for axis in axes], [[view.strides[axis] for axis in axes] for view in views]
    )
