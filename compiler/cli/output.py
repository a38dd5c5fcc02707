"""Results on the terminal and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...ir.errors import UserError
from ...ir.files import write_whole

out = Console()


def show(title: str, rows: Mapping[str, str], json_file: Path | None, facts: Any) -> None:
    if json_file is None or str(json_file) != "-":
        # Names of files and of nodes may have brackets, which are no markup.
        table = Table(title=escape(title), title_justify="left", show_header=False, box=None)
        for name, text in rows.items():
            table.add_row(escape(name), escape(text))
        out.print(table)
    if json_file is not None:
        write_json(json_file, facts)


def write_json(path: Path, facts: Any) -> None:
    """To a file, or to standard output where the path is -."""
    text = json.dumps(facts, indent=1) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_result(path, text.encode())


def write_result(path: Path, data: bytes) -> None:
    """Raises UserError where it cannot be written."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def line(value: Any) -> str:
    """A fact in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
