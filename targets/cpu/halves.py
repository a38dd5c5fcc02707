"""Sums of products of float16 numbers, where a vector unit multiplies and adds those: in runs, which float32 sums take.

A vector register holds twice as many sums as in float32, but each addition rounds what it gives to 11 bits, by 0.42 of
2^-11 of it as a root of the mean square. Sums of products that have either sign grow as a random walk, so that one of n
is off by 0.42 sqrt(n / 2) 2^-11, or 0.3 sqrt(n) 2^-11, of its deviation, and all of a layer's runs together by as much
of the layer's: a profile's ``half_run`` of 64 costs 1.2e-3. To round the result to bfloat16 costs 1.7e-3.

While a run is added up, float32 sums wait in memory: the registers are as many as a tile of float32 needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import tirx as T

from .kernel import fill, local

LEAST_RUN = 16
"""Products, at least, of a run: of fewer, what widening costs is more than what the products save."""

WIDENED = 9
"""Multiply-adds' worth of time that a vector of sums takes when a run begins and ends, to be zero, widened and added:
llvm-mca has 10 on the Cortex-A76 and 8 on the Cortex-X3."""

Totals = list[list[list[Any]]]
"""Local arrays: of each row of a tile, its parts' chunks."""


def in_runs(
    reduce: tuple[int, ...], a_reduce: tuple[int, ...], longest: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Cut a reduction of these extents and strides so that its last axes, as many as the third result says, have the
    most products that are no more than ``longest``: none where these are too few for a run.
    """
    axes, count = 0, 1
    while axes < len(reduce) and count * reduce[-1 - axes] <= longest:
        axes += 1
        count *= reduce[-axes]
    cut, strides = reduce, a_reduce
    if axes < len(reduce):
        place = len(reduce) - 1 - axes
        size, stride = reduce[place], a_reduce[place]
        piece = max(one for one in range(1, max(longest // count, 1) + 1) if size % one == 0)
        if piece > 1:
            cut = (*reduce[:place], size // piece, piece, *reduce[place + 1 :])
            strides = (*a_reduce[:place], stride * piece, stride, *a_reduce[place + 1 :])
            axes, count = axes + 1, count * piece
    return (cut, strides, axes) if count >= LEAST_RUN else (reduce, a_reduce, 0)


@contextmanager
def run(sums: Totals, lanes: int) -> Iterator[Totals]:
    """What the products of a run are added to; then it is added to ``sums``."""
    halves = [[[local(lanes, "float16") for _ in part] for part in row] for row in sums]
    pairs = [
        (total, half)
        for row, short_row in zip(sums, halves, strict=True)
        for part, short in zip(row, short_row, strict=True)
        for total, half in zip(part, short, strict=True)
    ]
    for _, half in pairs:
        fill(half, lanes, 0.0)
    yield halves
    for total, half in pairs:
        with T.vectorized(0, lanes) as lane:
            T.buffer_store(total, total[lane] + T.cast(half[lane], "float32"), [lane])
