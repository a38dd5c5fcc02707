"""What a command writes is none of what it reads, and no two of its results go to one place."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ...ir.errors import UserError
from ...ir.files import check_apart

WRITTEN = {
    "output": "--output",
    "write_back": "--write-back",
    "chart": "--chart",
    "trace_file": "--trace",
    "json_file": "--json",
}
"""Parameters of verbs that say where results go; any other path is read."""

NAMES = ("model", "target", "hardware")
"""Those that may be paths, and may be names."""


def apart(command: Callable[..., None]) -> Callable[..., None]:
    """The verb, which raises UserError for a mistake of the kind before anything is read or written."""

    @wraps(command)
    def checked(**given: Any) -> None:
        read = [
            Path(value)
            for name, value in given.items()
            if name not in WRITTEN and (isinstance(value, Path) or (name in NAMES and value is not None))
        ]
        taken: set[str] = set()
        for name, option in WRITTEN.items():
            place = given.get(name)
            if place is None or str(place) == "-":
                continue
            for source in read:
                check_apart(place, source)
            if (whole := os.path.realpath(place)) in taken:
                raise UserError(f"cannot write {place} twice; give {option} another place")
            taken.add(whole)
        command(**given)

    return checked
