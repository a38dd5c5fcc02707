"""Figures for machines: the option that asks for them, and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fick.ir.files import write_whole


def _place(path: Path | None) -> Path | None:
    """Its folder is made, and what cannot be written refused, before hours of work."""
    if path is not None:
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; give the path of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


JsonFile = Annotated[Path | None, typer.Option("--json", help="All figures, for machines.", callback=_place)]


def write_json(path: Path | None, figures: Any) -> None:
    """Where a file was asked for."""
    if path is not None:
        write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
