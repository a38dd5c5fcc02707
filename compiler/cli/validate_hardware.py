"""fick validate-hardware: the hardware model against the literature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from .arguments import JsonOption
from .output import out, write_json

EXAMPLE = "Example: `fick validate-hardware --sensitivity`"


def command(
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="How headlines move with each assumed constant 25 % off: half a minute."
        ),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Compare the hardware model with every published figure; exit code 1 if one is further off than its aim."""
    from ...hwmodel.validation import models, validate
    from ..programs import structure
    from ..progress import terminal

    with terminal() as reporter:
        reporter.stage("import models")
        programs = {name: structure(name) for name in models()}
        reporter.stage("sensitivity" if sensitivity else "figures")
        rows = validate(programs, sensitivity, reporter.update)
        reporter.finish()
    if str(json_file) != "-":
        out.print(_figures(rows))
        for row in rows:
            if row.sensitivity:
                out.print(_sensitivity(row))
    if json_file is not None:
        write_json(json_file, {"figures": [row.facts() for row in rows]})
    if not all(row.held for row in rows):
        raise typer.Exit(1)


def _figures(rows: Sequence[Any]) -> Table:
    table = Table("", box=None, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    for name in ("reported", "modelled", "error", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("held", no_wrap=True)
    table.add_column("worth", no_wrap=True)
    for row in rows:
        table.add_row(*row.shown().values())
    return table


def _sensitivity(row: Any) -> Table:
    """The constants that move a figure by what can be seen."""
    title = f"{row.figure.number}: how it moves with an assumed constant a quarter smaller and larger"
    table = Table("constant", box=None, title=title, title_justify="left", caption_justify="left")
    for name in ("-25 %", "+25 %"):
        table.add_column(name, justify="right")
    ranked = row.ranked()
    for path, moves in ranked:
        shown = ["-" if move is None else f"{move:+.1%}" for move in moves]
        if set(shown) - {"-", "+0.0%", "-0.0%"}:
            table.add_row(path, *shown)
    table.caption = f"{len(ranked) - table.row_count} others move it by less than 0.05 %"
    return table
