"""Rooflines of measured bundles as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ...hwmodel.report.charts import KINDS
from ...hwmodel.workload import Kind
from ..figures import png
from .layers import ATTENTION

COLOURS = {str(kind): colour for kind, colour in KINDS.items()} | {ATTENTION: KINDS[Kind.SCORES]}
SIZE_INCHES = (13.0, 5.6)
DOTS_PER_INCH = 130
LARGEST_DOT = 2000.0
"""Area in square points of a layer that takes all of the time."""

SMALLEST_DOT = 10.0
APART = 1.3
"""Slopes that are closer than this ratio are one."""

ROOF, FAINT = "#333333", "#bbbbbb"


def draw(measured: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A PNG from what ``bench(..., layers=True)`` gives, by title: layers under the roofs, and time by kind.

    Only layers that sum products have a place on the left; the right has all of them.
    """
    width, height = SIZE_INCHES
    figure = Figure(figsize=(width, height * len(measured)), dpi=DOTS_PER_INCH, layout="constrained")
    parts = figure.subfigures(len(measured), squeeze=False)[:, 0]
    for part, (title, facts) in zip(parts, measured.items(), strict=True):
        left, right = part.subplots(1, 2, width_ratios=(2.2, 1))
        part.suptitle(title, x=0.01, ha="left")
        _roofs(left, facts)
        _layers(left, facts)
        _kinds(right, facts)
    return png(figure)


def _roofs(axes: Axes, facts: Mapping[str, Any]) -> None:
    """The peak rate of each format, and slopes for buffers that differ in their rates."""
    multiplied = [one for one in facts["layers"] if one["macs"]]
    intensities = [one["flops_per_byte"] for one in multiplied]
    low, high = min(intensities) / 2, max(intensities) * 2
    peaks = {name: peak / 1e9 for name, peak in facts["peaks"]["flops_per_s"].items()}
    top = max(peaks.values())
    for name, peak in peaks.items():
        axes.plot([low, high], [peak, peak], color=ROOF)
        text = f"{name}: {peak:,.0f} GFLOP/s"
        axes.annotate(text, (high, peak), (-4, 4), textcoords="offset points", ha="right")
    colour, last = ROOF, 0.0
    for one in reversed(facts["peaks"]["read"]):
        rate = one["bytes_per_s"] / 1e9
        if rate < APART * last or low * rate > top:
            continue
        axes.plot([low, top / rate], [low * rate, top], color=colour, zorder=1)
        text = f"{one['buffer_bytes'] / (1 << 20):g} MiB: {rate:,.0f} GB/s"
        axes.annotate(text, (low, low * rate), (4, -1), textcoords="offset points", fontsize=7, va="top")
        colour, last = FAINT, rate
    slowest = min(one["flops_per_s"] for one in multiplied) / 1e9
    axes.set(
        xscale="log", yscale="log", xlim=(low, high), ylim=(slowest / 2, top * 1.6),
        xlabel="floating-point operations a byte of weights and activations", ylabel="GFLOP/s",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(
        "Layers that sum products, area by time; minimal filtering may pass the roof", fontsize=9, loc="left"
    )
    axes.grid(color="#eeeeee")


def _layers(axes: Axes, facts: Mapping[str, Any]) -> None:
    whole = facts["total"]["seconds"]
    for kind in facts["kinds"]:
        members = [one for one in facts["layers"] if one["kind"] == kind and one["macs"]]
        if members:
            axes.scatter(
                [one["flops_per_byte"] for one in members],
                [one["flops_per_s"] / 1e9 for one in members],
                [max(SMALLEST_DOT, LARGEST_DOT * one["seconds"] / whole) for one in members],
                color=COLOURS[kind], alpha=0.6, linewidths=0, label=kind, zorder=2,
            )  # fmt: skip
    legend = axes.legend(loc="lower right", fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([40.0])  # type: ignore[union-attr] - every entry is a scatter's


def _kinds(axes: Axes, facts: Mapping[str, Any]) -> None:
    kinds = list(reversed(facts["kinds"].items()))
    for row, (kind, one) in enumerate(kinds):
        axes.barh(row, one["seconds"] * 1e3, color=COLOURS[kind], alpha=0.35)
        axes.barh(row, min(one["bound_s"], one["seconds"]) * 1e3, color=COLOURS[kind])
        axes.annotate(
            f"{one['share']:.0%}",
            (one["seconds"] * 1e3, row),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(kinds)), [kind for kind, _ in kinds])
    axes.set(xlabel="ms a call", xlim=(0, 1.15 * max(one["seconds"] for _, one in kinds) * 1e3))
    axes.set_title("Solid: at the limit. Pale: lost to it", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
