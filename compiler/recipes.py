"""Recipes: which optional passes a compilation runs, with what parameters, as a TOML file.

[[pass]]
name = "tips"
threshold = 0.4
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..ir.errors import UserError, first_line
from ..passes.base import Pass
from ..passes.pssa import PruneScores
from ..passes.tips import Tips

PASSES: dict[str, type[Pass[Any]]] = {one.name: one for one in (PruneScores, Tips)}

LARGEST_BYTES = 1 << 20


def read_recipe(path: Path) -> list[Pass[Any]]:
    """The passes of a recipe, in its order. Raises UserError naming what is wrong and what would be right."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES:
            raise ValueError("it is larger than 1 MiB")
        tables = tomllib.loads(text.decode())
    except (OSError, ValueError) as error:
        raise UserError(f"recipe {path} cannot be read: {first_line(error)}.") from None
    listed = tables.pop("pass", None)
    if tables or not isinstance(listed, list) or not listed:
        raise UserError(
            f"recipe {path} should hold tables [[pass]] and nothing else, each with the name of a pass."
        )
    return [_made(one, f"recipe {path}, pass {index + 1}") for index, one in enumerate(listed)]


def _made(table: Any, where: str) -> Pass[Any]:
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or name not in PASSES:
        raise UserError(f"{where}: there is no pass {name!r}; the passes are {', '.join(sorted(PASSES))}.")
    kind = PASSES[name]
    try:
        return kind(kind.Config.model_validate({key: value for key, value in table.items() if key != "name"}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.Config.model_fields)
        raise UserError(f"{where} ({name}), {field}: {first['msg']}; its parameters are {known}.") from None


def check_needs(passes: Sequence[Pass[Any]], kind: str, name: str) -> None:
    """Raises UserError for a pass that makes no sense on hardware ``name`` of this ``kind``."""
    for one in passes:
        if one.needs and one.needs != kind:
            raise UserError(
                f"pass {one.name} needs a {one.needs} core, which {name} does not have; leave it out of the recipe, "
                f"or estimate for hardware of kind {one.needs}."
            )
