"""The page of a search: designs and their front, in plots that follow each other. It loads nothing from anywhere."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import combinations_with_replacement
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..explore.measures import COLUMNS, Measure
from ..explore.problem import Problem
from ..explore.space import Axis
from .charts import ABOVE, GRID, MARGIN, PLAIN
from .frame import framed
from .page import drawing

Facts = Mapping[str, Any]
Row = Mapping[str, Any]

MOST_SHOWN = 1500
"""Designs beside the front, evenly taken: a browser draws no more at once."""

MOST_TICKS = 8

OTHERS, BEST, BROKEN, CHOSEN = "#9A9A9A", "#D55E00", "#E0CDB0", "#0072B2"
MARKS = {"sda": ("diamond", "#0072B2"), "dbsc": ("star", "#009E73")}


def page(facts: Facts, rows: Sequence[Row], problem: Problem) -> str:
    """A search as one HTML page, the same bytes for the same search."""
    shown = _shown(rows)
    return framed(
        "designs",
        f"Designs for {facts['model']} over {facts['hardware']}",
        "\n".join(_headline(facts)),
        matrix=drawing(matrix(facts, shown, problem.objectives), "matrix"),
        parallel=drawing(parallel(shown, problem), "parallel"),
        sensitivity=drawing(sensitivity(rows, problem), "sensitivity"),
        front="\n".join(_front(facts, problem)),
        columns="".join(f"<th>{escape(name)}</th>" for name in _columns(problem)),
        paths=json.dumps(paths(shown, problem)),
        said=escape(_said(facts, rows, shown)),
    )


def matrix(facts: Facts, rows: Sequence[Row], objectives: Sequence[Measure]) -> go.Figure:
    """Every objective over every other one; a single one over the designs' numbers.

    Points are drawn without WebGL, which not every browser has.
    """
    columns = [one.column for one in objectives] if len(objectives) > 1 else ["design", objectives[0].column]
    names = list(map(_labelled, objectives)) if len(objectives) > 1 else ["design", _labelled(objectives[0])]
    count = len(columns) - 1
    figure = make_subplots(
        count, count, shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.03, vertical_spacing=0.05 / count,
        specs=[[{} if across <= down else None for across in range(count)] for down in range(count)],
    )  # fmt: skip
    texts = [_described(row) for row in rows]
    marker = {
        "color": [BEST if row["front"] else OTHERS if row["feasible"] else BROKEN for row in rows],
        "size": [8 if row["front"] else 5 for row in rows],
        "line": {"width": 0},
    }
    for across, down in combinations_with_replacement(range(count), 2):
        x, y = columns[across], columns[down + 1]
        place: dict[str, Any] = {"row": down + 1, "col": across + 1}
        first = (down, across) == (0, 0)
        figure.add_scatter(
            x=[row[x] for row in rows], y=[row[y] for row in rows], mode="markers", marker=marker, text=texts,
            hovertemplate="%{text}<extra></extra>", meta="designs", showlegend=False,
            unselected={"marker": {"opacity": 0.08}}, **place,
        )  # fmt: skip
        for name, measures in facts["published"].items():
            if measures.get(x) is not None and measures.get(y) is not None:
                symbol, colour = MARKS[name]
                text = f"<b>{name}</b> as published<br>" + "<br>".join(_measured(measures))
                figure.add_scatter(
                    x=[measures[x]], y=[measures[y]], mode="markers", name=f"{name} as published",
                    legendgroup=name, showlegend=first, text=[text], hovertemplate="%{text}<extra></extra>",
                    marker={"color": colour, "symbol": symbol, "size": 13, "line": {"width": 1, "color": "#fff"}},
                    **place,
                )  # fmt: skip
        if down == count - 1:
            figure.update_xaxes(title_text=names[across], **place)
        if across == 0:
            figure.update_yaxes(title_text=names[down + 1], **place)
    figure.update_layout(**PLAIN, template="none", height=140 + 280 * count, dragmode="select")
    figure.update_layout(legend=ABOVE, margin={**MARGIN, "t": 40})
    figure.update_xaxes(GRID)
    figure.update_yaxes(GRID)
    return figure


def parallel(rows: Sequence[Row], problem: Problem) -> go.Figure:
    """A line for each design through its choices and its objectives, each axis from its least to its most."""
    figure = go.Figure(layout={**PLAIN, "template": "none", "height": 480, "dragmode": "select"})
    axes = _axes(rows, problem)
    drawn = paths(rows, problem)
    for best, name, colour in ((False, "designs", OTHERS), (True, "front", BEST)):
        some = [place for place, row in enumerate(rows) if row["front"] is best]
        figure.add_scatter(
            x=[x for _ in some for x in (*range(len(axes)), None)],
            y=[y for place in some for y in (*drawn[place], None)],
            customdata=[place for place in some for _ in range(len(axes) + 1)],
            text=[text for place in some for text in [_described(rows[place])] * (len(axes) + 1)],
            hovertemplate="%{text}<extra></extra>", name=name, mode="lines+markers", showlegend=True,
            line={"color": colour, "width": 2 if best else 0.6}, marker={"size": 4}, opacity=1.0 if best else 0.5,
        )  # fmt: skip
    figure.add_scatter(
        x=[], y=[], name="selected", mode="lines", line={"color": CHOSEN, "width": 1.2}, hoverinfo="skip"
    )
    for place, (_, ticks) in enumerate(axes):
        figure.add_scatter(
            x=[place + 0.04] * len(ticks), y=list(ticks.values()), text=list(ticks), mode="text", showlegend=False,
            textposition="middle right", textfont={"size": 11, "color": "#222"}, hoverinfo="skip",
        )  # fmt: skip
    names = [name for name, _ in axes]
    figure.update_layout(legend=ABOVE, margin={**MARGIN, "t": 40})
    figure.update_xaxes(
        {**GRID, "tickvals": list(range(len(names))), "ticktext": names, "range": [-0.2, len(names) - 0.3]}
    )
    figure.update_yaxes(visible=False, range=[-0.05, 1.05])
    return figure


def paths(rows: Sequence[Row], problem: Problem) -> list[list[float]]:
    """Of every design its heights on the axes of ``parallel``."""
    columns: list[list[float]] = []
    for axis in _varied(problem):
        places = {label: place / (len(axis.labels) - 1) for place, label in enumerate(axis.labels)}
        columns.append([places[row[axis.name]] for row in rows])
    for one in problem.objectives:
        low, span = _extent(rows, one)
        columns.append([round((row[one.column] - low) / span, 4) for row in rows])
    return [list(heights) for heights in zip(*columns, strict=True)]


def _axes(rows: Sequence[Row], problem: Problem) -> list[tuple[str, dict[str, float]]]:
    """Name and ticks of each axis of ``parallel``."""
    found: list[tuple[str, dict[str, float]]] = []
    for axis in _varied(problem):
        last = len(axis.labels) - 1
        shown = [axis.labels[0], axis.labels[-1]] if last > MOST_TICKS else axis.labels
        found.append((_short(axis.name), {_number(one): axis.labels.index(one) / last for one in shown}))
    for one in problem.objectives:
        low, span = _extent(rows, one)
        found.append((_labelled(one), {f"{low + share * span:.4g}": share for share in (0.0, 0.5, 1.0)}))
    return found


def _varied(problem: Problem) -> list[Axis]:
    return [axis for axis in problem.space.axes if len(axis.labels) > 1]


def _extent(rows: Sequence[Row], one: Measure) -> tuple[float, float]:
    values = [row[one.column] for row in rows]
    return min(values), (max(values) - min(values)) or 1.0


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
    return ["design", *(_short(axis.name) for axis in _varied(problem)), *map(_labelled, problem.objectives)]


def _front(facts: Facts, problem: Problem) -> Iterator[str]:
    axes = [axis.name for axis in _varied(problem)]
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
