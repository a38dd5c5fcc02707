"""Group normalisation (Wu and He, arXiv 1803.08494) with whatever elementwise work follows it.

Channels lie innermost, so statistics are taken per channel over runs of pixels and joined per group by the
pairwise rule of Chan, Golub and LeVeque (1983): exact for large means, where E[x^2] - E[x]^2 is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression
from .kernel import Kernel, evaluate, fill, flat, lane_chunks, local, store, unflatten

VECTORS_AT_ONCE = 8
"""Channel vectors whose sums are held in registers together."""


@dataclass(frozen=True)
class GroupNorm(Kernel):
    """Operands: x, scale [C], bias [C], scratch, out, then what the epilogue loads.

    Coordinates are (image, *pixels, channel). ``x_strides`` are those of (image, *pixels); channels of x are
    contiguous. ``runs`` divides the pixels of an image; each run is one task's share of the statistics.
    """

    images: int
    pixels: tuple[int, ...]
    channels: int
    groups: int
    epsilon: float
    runs: int
    x_strides: tuple[int, ...]
    out_strides: tuple[int, ...]
    epilogue: Expression
    lanes: int

    @property
    def scratch_floats(self) -> int:
        """Mean and squared deviation of each run and channel, then mean and gain of each channel."""
        return 2 * self.images * (self.runs + 1) * self.channels

    def body(self, operands: Sequence[Any]) -> None:
        self._statistics(operands[0], operands[3])
        self._join(operands[1], operands[3])
        self._apply(operands)

    def _run_slot(self, image: Any, run: Any, which: int, channel: Any) -> Any:
        return ((image * self.runs + run) * 2 + which) * self.channels + channel

    def _channel_slot(self, image: Any, which: int, channel: Any) -> Any:
        base = 2 * self.images * self.runs * self.channels
        return base + (image * 2 + which) * self.channels + channel

    def _statistics(self, x: Any, scratch: Any) -> None:
        length = math.prod(self.pixels) // self.runs
        with T.parallel(0, self.images * self.runs) as task:
            image, run = task // self.runs, task % self.runs
            step = self.lanes * VECTORS_AT_ONCE
            for first in range(0, self.channels, step):
                chunks = [
                    (first + start, width)
                    for start, width in lane_chunks(min(step, self.channels - first), self.lanes)
                ]
                means = [local(width) for _, width in chunks]
                squares = [local(width) for _, width in chunks]
                for total, square, (_, width) in zip(means, squares, chunks, strict=True):
                    fill(total, width, 0.0)
                    fill(square, width, 0.0)
                with T.serial(0, length) as pixel:
                    at = self._x_at(image, run * length + pixel)
                    for total, (channel, width) in zip(means, chunks, strict=True):
                        with T.vectorized(0, width) as lane:
                            T.buffer_store(total, total[lane] + x[at + channel + lane], [lane])
                for total, (_, width) in zip(means, chunks, strict=True):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(total, total[lane] * T.float32(1.0 / length), [lane])
                with T.serial(0, length) as pixel:
                    at = self._x_at(image, run * length + pixel)
                    for mean, square, (channel, width) in zip(means, squares, chunks, strict=True):
                        with T.vectorized(0, width) as lane:
                            off = x[at + channel + lane] - mean[lane]
                            T.buffer_store(square, square[lane] + off * off, [lane])
                for mean, square, (channel, width) in zip(means, squares, chunks, strict=True):
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(scratch, mean[lane], [self._run_slot(image, run, 0, channel + lane)])
                    with T.vectorized(0, width) as lane:
                        T.buffer_store(scratch, square[lane], [self._run_slot(image, run, 1, channel + lane)])

    def _x_at(self, image: Any, pixel: Any) -> Any:
        return flat([image, *unflatten(pixel, self.pixels)], self.x_strides)

    def _join(self, scale: Any, scratch: Any) -> None:
        size = self.channels // self.groups
        length = math.prod(self.pixels) // self.runs
        with T.serial(0, self.images * self.groups) as task:
            image, first = task // self.groups, task % self.groups * size
            mean, square = local(1), local(1)
            fill(mean, 1, 0.0)
            fill(square, 1, 0.0)
            with T.serial(0, self.runs) as run:
                with T.serial(0, size) as channel:
                    part = scratch[self._run_slot(image, run, 0, first + channel)]
                    T.buffer_store(mean, mean[0] + part, [0])
            T.buffer_store(mean, mean[0] * T.float32(1.0 / (self.runs * size)), [0])
            with T.serial(0, self.runs) as run:
                with T.serial(0, size) as channel:
                    off = scratch[self._run_slot(image, run, 0, first + channel)] - mean[0]
                    inside = scratch[self._run_slot(image, run, 1, first + channel)]
                    T.buffer_store(square, square[0] + inside + off * off * T.float32(length), [0])
            variance = square[0] * T.float32(1.0 / (self.runs * size * length))
            T.buffer_store(square, T.float32(1.0) / T.sqrt(variance + T.float32(self.epsilon)), [0])
            with T.serial(0, size) as channel:
                T.buffer_store(scratch, mean[0], [self._channel_slot(image, 0, first + channel)])
                gain = square[0] * scale[first + channel]
                T.buffer_store(scratch, gain, [self._channel_slot(image, 1, first + channel)])

    def _apply(self, operands: Sequence[Any]) -> None:
        x, _, bias, scratch, out = operands[:5]
        total = math.prod(self.pixels)
        # A task is a stretch of pixels that stays in the first-level cache.
        stretch = next(size for size in range(min(total, 16), 0, -1) if total % size == 0)
        with T.parallel(0, self.images * (total // stretch)) as task:
            image = task // (total // stretch)
            with T.serial(0, stretch) as step:
                pixel = task % (total // stretch) * stretch + step
                at = self._x_at(image, pixel)
                full = self.channels // self.lanes

                def vector(
                    channel: Any, width: int, image: Any = image, pixel: Any = pixel, at: Any = at
                ) -> None:
                    with T.vectorized(0, width) as lane:
                        c = channel + lane
                        off = x[at + c] - scratch[self._channel_slot(image, 0, c)]
                        normal = off * scratch[self._channel_slot(image, 1, c)] + bias[c]
                        where = [image, *unflatten(pixel, self.pixels), c]
                        result = evaluate(self.epilogue, operands, where, [normal])
                        store(out, result, flat(where, self.out_strides))

                if full:
                    with T.serial(0, full) as index:
                        vector(index * self.lanes, self.lanes)
                for start, width in lane_chunks(self.channels % self.lanes, self.lanes):
                    vector(full * self.lanes + start, width)
