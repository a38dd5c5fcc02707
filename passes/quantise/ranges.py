"""Ranges of activations: the largest value that still has a number of its own in a format.

The largest value seen makes every step between integers wide; what lies beyond a smaller range is cut off. A
percentile cuts a given share, and the least mean square error (Nagel et al., arXiv 2106.08295, section 3.1) weighs
what is cut off against the rounding of the rest. Statistics are streamed: a peak and a histogram a value, whatever the
number of calls. Ranges of diffusion models change with the noise, so there may be one for every timestep (He et al.,
arXiv 2310.03270, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...ir.formats import INTEGERS, Format, IntegerFormat
from ...ir.program import Program
from ..base import Arrays, Context, PassConfig
from ..measuring import Order, watch
from ..per_step import step_input

Estimator = Literal["peak", "percentile", "mse"]

BINS = 2048
"""Of a histogram: 16 for every step between integers of 8 bits."""

SHARES = np.linspace(0.2, 1.0, 81)
"""Ranges that are tried, as shares of the peak."""

FLOAT_SHARES = np.linspace(0.2, 2.0, 91)
"""For small floats, of which an end beyond the peak moves the rest to other numbers."""


class RangeConfig(PassConfig):
    estimator: Estimator = Field(
        default="peak", description="What ends a range: the largest value, a percentile, or the least error."
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="Share of the values inside the range [percent]."
    )
    per_step: bool = Field(default=False, description="Whether every timestep has ranges of its own.")


@dataclass(frozen=True)
class Ranges:
    """The end of each value's range, by name: one number, or [timesteps] in the order of ``timesteps``.

    ``formats`` are those that the ranges are for.
    """

    ends: dict[str, NDArray[np.float32]]
    timesteps: NDArray[np.float32] | None = None
    formats: Mapping[str, Format] = field(default_factory=dict[str, Format])


def measure(
    context: Context,
    program: Program,
    names: Sequence[str],
    config: RangeConfig,
    among: Sequence[Format] = (INTEGERS["int8"],),
    run: tuple[Sequence[Arrays], Order] | None = None,
) -> Ranges:
    """Ranges of the values ``names`` on the calibration's calls, each for the format ``among`` those given that loses
    the least squares.

    ``run``, in place of these, are other calls, with what each runs. A timestep at which a value is neither computed
    nor read has the range of the nearest.
    """
    calls, order = run or (context.require("calibration", "quantise"), ())
    names = list(dict.fromkeys(names))
    times = _times(program, calls) if config.per_step else np.zeros(len(calls), np.float32)
    moments, rows = np.unique(times, return_inverse=True)
    count = len(moments)
    peaks = {name: np.full(count, -1.0) for name in names}
    for row, values in _streamed(context, program, names, calls, order, rows):
        for name in values:
            peaks[name][row] = max(peaks[name][row], float(np.abs(values[name]).max()))
    known = {name: one >= 0 for name, one in peaks.items()}
    ends, formats = peaks, dict.fromkeys(names, among[0])
    if config.estimator != "peak" or len(among) > 1:
        histograms = {name: np.zeros((count, BINS), np.int64) for name in names}
        for row, values in _streamed(context, program, names, calls, order, rows):
            for name in values:
                if peak := peaks[name][row]:
                    bins = np.minimum(np.abs(values[name]).ravel() * (BINS / peak), BINS - 1).astype(np.int64)
                    histograms[name][row] += np.bincount(bins, minlength=BINS)
        for name in names:
            tried = {one: _fitted(histograms[name], peaks[name], one, config) for one in among}
            formats[name] = min(among, key=lambda one: tried[one][1])
            ends[name] = tried[formats[name]][0]
    ends = {name: one[_nearest(moments, known[name])] for name, one in ends.items()}
    safe = {name: np.where(one > 0, one, 1).astype(np.float32) for name, one in ends.items()}
    if config.per_step:
        return Ranges(safe, moments, formats)
    return Ranges({name: one.reshape(()) for name, one in safe.items()}, formats=formats)


def _fitted(
    counts: NDArray[np.int64], peaks: NDArray[np.float64], format: Format, config: RangeConfig
) -> tuple[NDArray[np.float64], float]:
    """Of a value, where ranges of the format end, and the squares that are lost: [timesteps], of which ``counts``
    [timesteps, bins] are histograms.
    """
    found, lost = list[float](), 0.0
    for row, peak in zip(counts, peaks.tolist(), strict=True):
        shares = _tried(row, format, config)
        errors = _errors(row, shares, format)
        best = int(np.argmin(errors))
        found.append(peak * float(shares[best]))
        lost += peak**2 * float(errors[best])
    return np.array(found), lost


def _tried(counts: NDArray[np.int64], format: Format, config: RangeConfig) -> NDArray[np.float64]:
    """Ends of ranges, as shares of the peak."""
    match config.estimator:
        case "peak":
            return np.ones(1)
        case "percentile":
            return np.array([_share_within(counts, config.percentile)])
        case "mse":
            return SHARES if isinstance(format, IntegerFormat) else FLOAT_SHARES


def _streamed(
    context: Context,
    program: Program,
    names: Sequence[str],
    calls: Sequence[Arrays],
    order: Order,
    rows: NDArray[np.int64],
) -> Iterator[tuple[int, Arrays]]:
    """For every call, the row of its statistics and those of the values that it has, inputs of the program included."""
    for row, inputs, results in zip(rows, calls, watch(context, program, names, calls, order), strict=True):
        found = {**inputs, **results}
        yield int(row), {name: found[name] for name in names if name in found}


def _nearest(moments: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each timestep the nearest of those that are known, itself if it is."""
    places = np.flatnonzero(known) if known.any() else np.arange(len(moments))
    return places[np.abs(moments[:, None] - moments[places]).argmin(1)]


def _times(program: Program, calls: Sequence[Arrays]) -> NDArray[np.float32]:
    """The timestep of every call."""
    name = str(step_input(program).name)
    return np.concatenate([call[name].reshape(-1)[:1] for call in calls]).astype(np.float32)


def _share_within(counts: NDArray[np.int64], percentile: float) -> float:
    """The share of the peak below which ``percentile`` of the values lie."""
    inside = np.cumsum(counts) >= counts.sum() * percentile / 100
    return (int(np.argmax(inside)) + 1) / BINS


def _errors(counts: NDArray[np.int64], shares: NDArray[np.float64], format: Format) -> NDArray[np.float64]:
    """Squares that are lost, over that of the peak, for each share of the peak as the end of the range."""
    centres = (np.arange(BINS) + 0.5) / BINS
    steps = shares[:, None] / format.largest
    return np.square(format.rounded(centres / steps) * steps - centres) @ counts.astype(np.float64)
