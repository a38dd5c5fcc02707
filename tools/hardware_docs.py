"""Write the tables of docs/hardware.md: every published figure beside the model's, and what the headlines rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fick.compiler.programs import structure
from fick.hwmodel.validation import Row, models, validate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hardware.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
MOST_MOVING = 5


def figures(rows: Sequence[Row]) -> str:
    """The figures as a table in Markdown."""
    heading = ("", "figure", "reported", "modelled", "error", "aim", "held", "worth")
    lines = [[*row.shown().values()] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        line[1] += f" ({row.figure.note})" if row.figure.note else ""
    return _table(heading, lines)


def sensitivities(rows: Iterable[Row]) -> str:
    """How the headlines move with the constants that move them most, as a table in Markdown."""
    lines = [
        (row.figure.number, f"`{path}`", *map(moved, moves))
        for row in rows
        for path, moves in row.ranked()[:MOST_MOVING]
    ]
    return _table(("figure", "assumed constant", "a quarter smaller", "a quarter larger"), lines)


def moved(move: float | None) -> str:
    return "cannot be" if move is None else f"{move:+.1%}"


def _table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def tables(text: str) -> str:
    """What stands between the marks of the page."""
    return text.partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    rows = validate({name: structure(name) for name in models()}, with_sensitivity=True)
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    made = f"{figures(rows)}\n{INTRODUCTION}\n{sensitivities(rows)}"
    PAGE.write_text(before + BEGIN + made + END + after, encoding="utf-8")


INTRODUCTION = f"""How a figure moves with an assumed constant a quarter off, for the {MOST_MOVING} constants that
move it most:
"""


if __name__ == "__main__":
    main()
