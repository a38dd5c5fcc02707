"""The charts of an estimate. A class of thing has the same colour in all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from ..workload import Kind, TensorClass
from .timeline import UNITS, Facts, Span, timeline

# Okabe and Ito's colours: told apart by colour-blind readers too.
KINDS = {
    Kind.CONVOLUTION: "#0072B2",
    Kind.MATMUL: "#D55E00",
    Kind.SCORES: "#009E73",
    Kind.VALUES: "#66C2A5",
    Kind.SOFTMAX: "#CC79A7",
    Kind.NORMALISATION: "#E69F00",
    Kind.ACTIVATION: "#56B4E9",
    Kind.ELEMENTWISE: "#7F7F7F",
    Kind.MOVEMENT: "#BDBDBD",
}
TENSORS = {
    TensorClass.WEIGHTS: "#4C6A92",
    TensorClass.ACTIVATIONS: "#A8C0DE",
    TensorClass.SELF_SCORES: "#8C4A8C",
    TensorClass.CROSS_SCORES: "#D9A5D9",
}
ENERGY = {"compute": "#B2182B", "sram": "#EF8A62", "dram": "#67A9CF"}
BOUNDS = {
    "compute": "#1B7837",
    "nonlinear": "#C51B7D",
    "bandwidth": "#2166AC",
    "fill": "#F1A340",
    "untimed": "#D9D9D9",
}
DASHES = ("solid", "dash", "dot", "dashdot")

MARGIN = {"l": 10, "r": 20, "t": 10, "b": 10}
PLAIN = {
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222"},
    "plot_bgcolor": "#fff",
    "paper_bgcolor": "#fff",
    "margin": MARGIN,
    "hoverlabel": {"align": "left", "namelength": -1},
}
GRID = {
    "gridcolor": "#e6e6e6",
    "linecolor": "#999",
    "automargin": True,
    "ticks": "outside",
    "zeroline": False,
    "title": {"standoff": 8},
}
ABOVE = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0, "traceorder": "normal"}
STAGES = ("#D9D9D9", "#F0F0F0")
"""Neighbours take turns."""


def time_line(facts: Facts) -> go.Figure:
    """Operators in time, and from the start of each how long every unit works on it."""
    spans, lanes = list(timeline(facts)), ("operators", *UNITS)
    starts, lengths, texts, places = (defaultdict[str, list[Any]](list) for _ in range(4))
    for span in spans:
        kind = span.operator["kind"]
        text = _described(span.operator)
        for lane, seconds in zip(lanes, (span.seconds, *map(span.busy_s, UNITS)), strict=True):
            if seconds:
                starts[kind].append(span.start_s * 1e3)
                lengths[kind].append(seconds * 1e3)
                texts[kind].append(text)
                places[kind].append(lane)
    figure = _figure(height=400, barmode="overlay", bargap=0.15, uniformtext={"minsize": 9, "mode": "hide"})
    _add_stages(figure, spans)
    for kind, colour in KINDS.items():
        if kind in starts:
            figure.add_bar(
                name=kind, orientation="h", base=starts[kind], x=lengths[kind], y=places[kind],
                marker={"color": colour, "line": {"width": 0}}, customdata=texts[kind],
                hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    end = spans[-1].start_s + spans[-1].seconds
    figure.update_xaxes(title_text="time (ms)", range=[0, end * 1e3])
    figure.update_yaxes(categoryorder="array", categoryarray=("stage", *lanes)[::-1], showgrid=False)
    return figure


def _add_stages(figure: go.Figure, spans: Sequence[Span]) -> None:
    """A lane that says which stage of the UNet runs."""
    for place, (stage, run) in enumerate(groupby(spans, lambda span: _stage(span.operator))):
        first, *rest = run
        last = rest[-1] if rest else first
        figure.add_bar(
            orientation="h", base=[first.start_s * 1e3], x=[(last.start_s + last.seconds - first.start_s) * 1e3],
            y=["stage"], text=[escape(stage)], textposition="inside", insidetextanchor="middle", textangle=0,
            textfont={"color": "#222"}, marker_color=STAGES[place % 2], showlegend=False, hoverinfo="skip",
        )  # fmt: skip


def stage_cycles(facts: Facts) -> go.Figure:
    """Cycles of the mean step by stage and kind of operator."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in _in_step(facts):
        found[one["kind"]][_stage(one)] += one["cycles"] * one["runs"] / facts["steps"]
    return _by_stage(facts, KINDS, lambda kind, stage: found[kind][stage["stage"]] / 1e6, "Mcycles a step")


def stage_bytes(facts: Facts) -> go.Figure:
    """Bytes off the chip of the mean step by stage and class of tensor."""
    return _by_stage(
        facts, TENSORS, lambda name, stage: stage["ema_bytes"][name] / 1e6, "MB off the chip a step"
    )


def stage_energy(facts: Facts) -> go.Figure:
    """Energy of the mean step by stage and where it goes."""
    return _by_stage(facts, ENERGY, lambda part, stage: stage["energy_mj"][part], "mJ a step")


def roofline(facts: Facts) -> go.Figure:
    """Products a second of every operator over products a byte, under what the array and the memory can do."""
    figure = _figure(height=460)
    points: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for one in facts["operators"]:
        moved = sum(one["ema_bytes"].values())
        if one["macs"] and moved and one["cycles"]:
            rate = one["macs"] * facts["clock_hz"] / one["cycles"]
            points[one["kind"]].append((one["macs"] / moved, rate / 1e9, _described(one)))
    reached = [x for found in points.values() for x, _, _ in found]
    if reached:
        low, high = min(reached) / 2, max(reached) * 2
        bandwidth = facts["dram_bytes_per_s"]
        for place, (mode, peak) in enumerate(facts["peak_macs_per_s"].items()):
            corner = peak / bandwidth if bandwidth else low
            xs = [min(low, corner), corner, max(high, 2 * corner)]
            ys = [x * bandwidth / 1e9 if bandwidth and x < corner else peak / 1e9 for x in xs]
            figure.add_scatter(
                x=xs, y=ys, mode="lines", name=f"peak of {mode}: {peak / 1e9:,.4g} GMAC/s",
                line={"color": "#555", "width": 1.5, "dash": DASHES[place % len(DASHES)]}, hoverinfo="skip",
            )  # fmt: skip
    for kind, colour in KINDS.items():
        if kind in points:
            xs, ys, texts = zip(*points[kind], strict=True)
            figure.add_scatter(
                x=xs, y=ys, mode="markers", name=kind, customdata=texts,
                marker={"color": colour, "size": 8, "opacity": 0.75, "line": {"width": 0.5, "color": "#fff"}},
                hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title_text="multiply-accumulates per byte off the chip", type="log")
    figure.update_yaxes(title_text="GMAC/s", type="log")
    return figure


def bounds(facts: Facts) -> go.Figure:
    """What bounds the operators of each kind, as a share of their time in an image."""
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in facts["operators"]:
        for row in ("all", one["kind"]):
            spent[row][one["bound"]] += one["cycles"] * one["runs"]
    total = sum(spent["all"].values()) or 1.0
    kinds = [kind for kind in KINDS if sum(spent[kind].values())]
    rows = {"all": "all", **{kind: f"{kind} ({sum(spent[kind].values()) / total:.1%})" for kind in kinds}}
    figure = _figure(height=110 + 30 * len(rows), barmode="stack", bargap=0.25)
    for bound, colour in BOUNDS.items():
        shares = [100 * spent[row][bound] / (sum(spent[row].values()) or 1.0) for row in rows]
        if any(shares):
            figure.add_bar(
                name=bound, orientation="h", y=list(rows.values()), x=shares, marker_color=colour,
                hovertemplate="%{y}: %{x:.1f} % bound by " + bound + "<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title_text="share of time (%)", range=[0, 100])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def utilisation(facts: Facts) -> go.Figure:
    """How well each kind of product uses the array: cycles in which it works, products of those at the peak."""
    cycles, busy, most, done = (defaultdict[str, float](float) for _ in range(4))
    for one in facts["operators"]:
        if one["macs"]:
            kind, runs = one["kind"], one["runs"]
            cycles[kind] += runs * one["cycles"]
            busy[kind] += runs * one["cycles"] * one["array_busy"]
            done[kind] += runs * one["macs"]
            most[kind] += runs * one["cycles"] / facts["clock_hz"] * facts["peak_macs_per_s"][one["mode"]]
    kinds = [kind for kind in KINDS if cycles[kind]]
    figure = _figure(height=70 + 50 * len(kinds), barmode="group", bargap=0.3)
    for name, shares, faint in (
        ("of the cycles", [busy[kind] / cycles[kind] for kind in kinds], 0.4),
        ("of the products at peak", [done[kind] / most[kind] for kind in kinds], 0.8),
    ):
        figure.add_bar(
            name=name, orientation="h", y=kinds, x=[100 * share for share in shares],
            marker={"color": [KINDS[kind] for kind in kinds], "opacity": faint},
            text=[f"{share:.0%} {name}" for share in shares], textposition="auto", textangle=0,
            textfont={"color": "#222"}, insidetextanchor="start", showlegend=False,
            hovertemplate="%{y}: %{x:.1f} % " + name + "<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="share (%)", range=[0, 100])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _stage(operator: Facts) -> str:
    return operator["stage"] or operator["variant"]


def _in_step(facts: Facts) -> Iterable[Facts]:
    """Operators of the stages that a step has."""
    stages = {stage["stage"] for stage in facts["stages"]}
    return (one for one in facts["operators"] if _stage(one) in stages)


def _by_stage(
    facts: Facts, colours: Mapping[Any, str], value: Callable[[str, Facts], float], unit: str
) -> go.Figure:
    stages = facts["stages"]
    # Room for a legend of four lines, so that neighbours stand on one line.
    figure = _figure(height=180 + 24 * len(stages), barmode="stack", bargap=0.25, margin={**MARGIN, "t": 100})
    for name, colour in colours.items():
        values = [value(str(name), stage) for stage in stages]
        if any(values):
            figure.add_bar(
                name=str(name), orientation="h", y=[escape(stage["stage"]) for stage in stages], x=values,
                marker_color=colour, hovertemplate="%{y}: %{x:,.4g} " + f"{unit}, {name}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title_text=unit)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _described(operator: Facts) -> str:
    """An operator in a few lines. Plotly reads markup in texts, so a name is escaped."""
    shape = ", ".join(f"{name} {size}" for name, size in operator["shape"].items())
    lines = [
        f"<b>{escape(operator['name'])}</b>",
        f"{operator['kind']}, {escape(_stage(operator))}",
        shape,
        f"{operator['cycles']:,} cycles, bound by {operator['bound']}",
        f"{sum(operator['ema_bytes'].values()) / 1e6:,.3g} MB off the chip, "
        f"{sum(operator['energy_mj'].values()):.3g} mJ",
    ]
    if operator["behind"]:
        lines.append(f"with {escape(operator['behind'])} behind it")
    return "<br>".join(lines)


def _figure(**layout: Any) -> go.Figure:
    figure = go.Figure(layout={"template": "none", "showlegend": True, **PLAIN, "legend": ABOVE, **layout})
    figure.update_xaxes(GRID)
    figure.update_yaxes(GRID)
    return figure
