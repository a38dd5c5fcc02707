"""The page of a search: designs and their front, in plots that follow each other. It loads nothing from anywhere."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..explore.measures import COLUMNS, Measure
from ..explore.problem import Problem
from .charts import ABOVE, GRID, MARGIN, PLAIN
from .page import drawing

Facts = Mapping[str, Any]
Row = Mapping[str, Any]

MOST_SHOWN = 3000
"""Designs beside the front, evenly taken: a browser draws no more at once."""

OTHERS, BEST, BROKEN = "#BDBDBD", "#D55E00", "#E8DCCB"
MARKS = {"sda": ("diamond", "#0072B2"), "dbsc": ("star", "#009E73")}


def page(facts: Facts, rows: Sequence[Row], problem: Problem) -> str:
    """A search as one HTML page, the same bytes for the same search."""
    shown = _shown(rows)
    title = f"Designs for {facts['model']} over {facts['hardware']}"
    return Template(files(__package__ or "").joinpath("designs.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        plotly=get_plotlyjs(),
        headline="\n".join(_headline(facts)),
        matrix=drawing(matrix(facts, shown, problem.objectives), "matrix"),
        parallel=drawing(parallel(shown, problem), "parallel"),
        sensitivity=drawing(sensitivity(rows, problem), "sensitivity"),
        front="\n".join(_front(facts, problem)),
        columns="".join(f"<th>{escape(name)}</th>" for name in _columns(problem)),
        rows=json.dumps([one["design"] for one in shown]),
        said=escape(_said(facts, rows, shown)),
    )


def matrix(facts: Facts, rows: Sequence[Row], objectives: Sequence[Measure]) -> go.Figure:
    """Every objective over every other one."""
    figure = go.Figure(
        layout={**PLAIN, "template": "none", "height": 240 + 180 * len(objectives), "dragmode": "select"}
    )
    dimensions = [
        {"label": _labelled(one), "values": [row[one.column] for row in rows]} for one in objectives
    ]
    figure.add_splom(
        dimensions=dimensions, name="designs", text=[_described(row) for row in rows],
        hovertemplate="%{text}<extra></extra>", diagonal={"visible": False}, showupperhalf=False,
        marker={
            "color": [BEST if row["front"] else OTHERS if row["feasible"] else BROKEN for row in rows],
            "size": [7 if row["front"] else 4 for row in rows], "line": {"width": 0},
        },
        unselected={"marker": {"opacity": 0.08}}, showlegend=False,
    )  # fmt: skip
    for name, measures in facts["published"].items():
        symbol, colour = MARKS[name]
        text = f"<b>{name}</b> as published<br>" + "<br>".join(_measured(measures))
        figure.add_splom(
            dimensions=[
                {"label": _labelled(one), "values": [measures.get(one.column)]} for one in objectives
            ],
            name=f"{name} as published", text=[text], hovertemplate="%{text}<extra></extra>",
            diagonal={"visible": False}, showupperhalf=False,
            marker={"color": colour, "symbol": symbol, "size": 13, "line": {"width": 1, "color": "#fff"}},
        )  # fmt: skip
    figure.update_layout(legend={**ABOVE, "y": 1.02}, margin={**MARGIN, "l": 80, "t": 50, "b": 60})
    figure.update_xaxes({**GRID, "automargin": False})
    figure.update_yaxes({**GRID, "automargin": False})
    return figure


def parallel(rows: Sequence[Row], problem: Problem) -> go.Figure:
    """A line for each design through its choices and its objectives."""
    dimensions: list[dict[str, Any]] = []
    for axis in problem.space.axes:
        if len(axis.labels) > 1:
            places = {label: place for place, label in enumerate(axis.labels)}
            dimensions.append(
                {
                    "label": _short(axis.name), "values": [places[row[axis.name]] for row in rows],
                    "tickvals": list(places.values()), "ticktext": [_number(label) for label in places],
                    "range": [0, len(places) - 1],
                }
            )  # fmt: skip
    for one in problem.objectives:
        dimensions.append({"label": _labelled(one), "values": [row[one.column] for row in rows]})
    figure = go.Figure(layout={**PLAIN, "template": "none", "height": 460})
    figure.add_parcoords(
        dimensions=dimensions,
        line={
            "color": [int(row["front"]) for row in rows], "cmin": 0, "cmax": 1,
            "colorscale": [[0, OTHERS], [1, BEST]],
        },
        labelangle=-18, labelfont={"size": 12}, tickfont={"size": 10},
        unselected={"line": {"opacity": 0.03}},
    )  # fmt: skip
    figure.update_layout(margin={"l": 70, "r": 70, "t": 110, "b": 30})
    return figure


def effects(rows: Sequence[Row], problem: Problem) -> dict[str, dict[str, float]]:
    """By axis and objective: how much a design changes, in the median, from one end of the axis to the other.

    Designs are compared that differ in that axis alone; those that were not timed at both of two neighbouring places
    say nothing. A share of 0.5 is half as much again.
    """
    found: dict[str, dict[str, float]] = {}
    space = problem.space
    by_number = {int(row["design"]): row for row in rows}
    for place, axis in enumerate(space.axes):
        steps: dict[tuple[int, str], list[float]] = defaultdict(list)
        for number, row in by_number.items():
            digits = space.digits(number)
            if digits[place] + 1 == len(axis.labels):
                continue
            other = by_number.get(space.number((*digits[:place], digits[place] + 1, *digits[place + 1 :])))
            for one in problem.objectives if other is not None else ():
                if row[one.column]:
                    steps[digits[place], one.column].append(other[one.column] / row[one.column])  # pyright: ignore[reportOptionalSubscript]
        for one in problem.objectives:
            ends = [(digit, one.column) for digit in range(len(axis.labels))]
            known = [statistics.median(steps[end]) for end in ends if steps[end]]
            if known:
                found.setdefault(axis.name, {})[one.column] = math.prod(known) - 1
    return found


def sensitivity(rows: Sequence[Row], problem: Problem) -> go.Figure:
    """What each parameter does to each objective."""
    known = effects(rows, problem)
    names = sorted(known, key=lambda name: max(map(abs, known[name].values())))
    figure = go.Figure(
        layout={
            **PLAIN, "template": "none", "height": 140 + 26 * len(names) * max(1, len(problem.objectives)) // 2,
            "barmode": "group", "bargap": 0.25, "legend": ABOVE, "showlegend": True,
        }
    )  # fmt: skip
    for one, colour in zip(problem.objectives, COLOURS, strict=False):
        figure.add_bar(
            name=_labelled(one), orientation="h", y=[_short(name) for name in names],
            x=[100 * known[name].get(one.column, 0.0) for name in names], marker_color=colour,
            hovertemplate="%{y}: %{x:+.3g} % " + escape(_labelled(one)) + "<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(
        {**GRID, "title_text": "change from the first value to the last (%)", "zeroline": True}
    )
    figure.update_yaxes({**GRID, "showgrid": False})
    return figure


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _shown(rows: Sequence[Row]) -> list[Row]:
    rest = [row for row in rows if not row["front"]]
    every = max(1, -(-len(rest) // MOST_SHOWN))
    # The front is drawn last, and so on top.
    return [*rest[::every], *(row for row in rows if row["front"])]


def _said(facts: Facts, rows: Sequence[Row], shown: Sequence[Row]) -> str:
    counts = facts["counts"]
    said = (
        f"{facts['size']:,} designs in the space; {counts['evaluated']:,} timed, {counts['beaten']:,} that no buffers "
        f"could bring to the front, {counts['excluded']:,} outside of the constraints, {counts['misfit']:,} that the "
        f"model does not fit."
    )
    if len(shown) < len(rows):
        said += f" Drawn are the front and every {-(-(len(rows)) // len(shown))}th other design."
    return said


def _headline(facts: Facts) -> Iterator[str]:
    tiles = {
        "designs in the space": f"{facts['size']:,}",
        "timed": f"{facts['counts']['evaluated']:,}",
        "on the front": f"{len(facts['front']):,}",
        f"{facts['method']}, seed {facts['seed']}: hypervolume": f"{facts['hypervolume']:.4f}",
        "steps an image": f"{facts['steps']}",
        "DRAM table": facts["dram"],
    }
    for name, text in tiles.items():
        yield f"<div><b>{escape(text)}</b><span>{escape(name)}</span></div>"


def _columns(problem: Problem) -> list[str]:
    varied = [_short(axis.name) for axis in problem.space.axes if len(axis.labels) > 1]
    return ["design", *varied, *map(_labelled, problem.objectives)]


def _front(facts: Facts, problem: Problem) -> Iterator[str]:
    axes = [axis.name for axis in problem.space.axes if len(axis.labels) > 1]
    first = problem.objectives[0]
    for one in sorted(facts["front"], key=lambda one: first.cost(one["measures"][first.column])):
        cells = [str(one["design"]), *(_number(one["labels"][name]) for name in axes)]
        cells += [f"{one['measures'][each.column]:,.5g}" for each in problem.objectives]
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _described(row: Row) -> str:
    """A design in a few lines. Plotly reads markup in texts, so names are escaped."""
    chosen = [f"{escape(name)} = {escape(_number(value))}" for name, value in row.items() if name not in _OWN]
    return "<br>".join([f"<b>design {row['design']}</b>", *chosen, *_measured(row)])


_OWN = {"design", "front", "feasible", *COLUMNS}


def _measured(measures: Mapping[str, Any]) -> Iterator[str]:
    for column, one in COLUMNS.items():
        if measures.get(column) is not None:
            yield f"{_short(column)}: {measures[column]:,.4g} {one.unit}"


def _labelled(one: Measure) -> str:
    return f"{one.name.replace('_', ' ')} ({one.unit})" if one.unit else one.name


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _number(value: Any) -> str:
    """A label: large numbers in thousands, millions and so on."""
    if isinstance(value, bool | str):
        return str(value)
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if prefix == 'k' else factor):.4g} {prefix}"
    return f"{value:.4g}"
