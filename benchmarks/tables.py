"""Figures for people: a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def show_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1, width: int = 120
) -> None:
    """The first ``words`` columns are words, and numbers stand in the others; ``width`` is in letters."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < words else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=width).print(table)
