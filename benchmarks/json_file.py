"""Figures for machines: the option that asks for them, and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fick.ir.files import write_whole

JsonFile = Annotated[Path | None, typer.Option("--json", help="All figures, for machines.")]


def write_json(path: Path | None, figures: Any) -> None:
    """Where a file was asked for."""
    if path is not None:
        write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
