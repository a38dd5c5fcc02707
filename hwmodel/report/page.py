"""The page of an estimate: charts, and a table of all operators. It loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import plotly.graph_objects as go
from plotly.io import to_html

from . import charts
from .frame import framed
from .timeline import Facts

SECTIONS = (
    (
        "Time line",
        "One run of every variant. Operators run one after another; below each, how long the array, the nonlinear "
        "unit and the busiest port of the memory work on it, from its start on. Drag to zoom, double-click to return.",
        (charts.time_line,),
    ),
    (
        "Stages of a step",
        "The mean step, by stage of the UNet.",
        (charts.stage_cycles, charts.stage_bytes, charts.stage_energy),
    ),
    (
        "Roofline",
        "Every operator that multiplies, under the peak of each mode of the array and the bandwidth of the memory.",
        (charts.roofline,),
    ),
    (
        "What bounds the time",
        "Of each kind's time (in brackets its share of an image), what it is spent on. Fill: every unit waits more "
        "than it works.",
        (charts.bounds,),
    ),
    (
        "Use of the array",
        "Of each kind's time, the cycles in which the array works; and its products, of those that the mode's peak "
        "would make in that time. Edges of tiles lie between the two.",
        (charts.utilisation,),
    ),
)

CONFIG = {"displayModeBar": False, "responsive": True, "showLink": False, "plotlyServerURL": ""}


def page(facts: Facts) -> str:
    """An estimate as one HTML page, the same bytes for the same estimate."""
    return framed(
        "page",
        f"{facts['model']} on {facts['hardware']}",
        "\n".join(_headline(facts)),
        assumed=escape(", ".join(facts["assumed"]) or "nothing"),
        sections="\n".join(_sections(facts)),
        operators="\n".join(_operators(facts)),
        count=len(facts["operators"]),
    )


def _headline(facts: Facts) -> Iterator[str]:
    energy = facts["step_energy_mj"]
    tiles = {
        "a step": f"{facts['step_latency_s']:.4g} s",
        "cycles a step": f"{facts['step_cycles']:,}",
        f"an image of {facts['steps']} steps": f"{facts['image_latency_s']:.4g} s",
        "GMAC a step": f"{facts['macs'] / 1e9:,.4g}",
        "MB off the chip a step": f"{sum(facts['ema_bytes'].values()) / 1e6:,.4g}",
        "mJ a step": f"{sum(energy.values()):,.0f}"
        if sum(energy.values()) >= 1000
        else f"{sum(energy.values()):.4g}",
        "clock": f"{facts['clock_hz'] / 1e6:g} MHz",
        "DRAM table": facts["dram"],
    }
    for name, parts in facts["resources"].items():
        tiles[name.replace("_", " ")] = (
            f"{sum(parts.values()):,.4g}" if name == "area_mm2" else f"{sum(parts.values()):,}"
        )
    for name, text in tiles.items():
        yield f"<div><b>{escape(text)}</b><span>{escape(name)}</span></div>"


def _sections(facts: Facts) -> Iterator[str]:
    for title, explained, drawn in SECTIONS:
        inner = "".join(f"<div>{drawing(draw(facts), draw.__name__)}</div>" for draw in drawn)
        yield f'<section><h2>{title}</h2><p>{explained}</p><div class="charts of{len(drawn)}">{inner}</div></section>'


def drawing(figure: go.Figure, name: str) -> str:
    return to_html(figure, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=name)


def _operators(facts: Facts) -> Iterator[str]:
    for one in facts["operators"]:
        shape = " ".join(
            f"{name} {'x'.join(map(str, size)) if isinstance(size, list) else size}"
            for name, size in one["shape"].items()
        )
        cells = (
            one["name"] + (f" + {one['behind']}" if one["behind"] else ""),
            one["stage"] or one["variant"],
            one["kind"],
            shape,
            "x".join(map(str, one["bits"][:2])),
        )
        numbers = (
            f"{one['runs']:,}",
            f"{one['cycles']:,}",
            f"{one['array_busy']:.0%}",
            f"{sum(one['ema_bytes'].values()) / 1e6:,.3f}",
            f"{sum(one['energy_mj'].values()):,.4g}",
        )
        yield "<tr>{}{}<td>{}</td></tr>".format(
            "".join(f"<td>{escape(cell)}</td>" for cell in cells),
            "".join(f'<td class="n">{number}</td>' for number in numbers),
            one["bound"],
        )
