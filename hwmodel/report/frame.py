"""What all pages have: a title, figures in tiles, the plotting library, and no way to load anything."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

from plotly.offline import get_plotlyjs


def framed(name: str, title: str, headline: str, **parts: object) -> str:
    """The page of NAME.html, filled with ``parts``, and NAME.css. ``title`` is plain text, all else is HTML."""
    return _template("frame.html").substitute(
        title=escape(title),
        headline=headline,
        plotly=get_plotlyjs(),
        style=_text(f"{name}.css"),
        body=_template(f"{name}.html").substitute(parts),
    )


def _template(name: str) -> Template:
    return Template(_text(name))


def _text(name: str) -> str:
    return files(__package__ or "").joinpath(name).read_text(encoding="utf-8")
