"""Recipes as text: what a search found, in TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...passes.base import Pass


def tables(passes: Sequence[Pass[Any]]) -> str:
    """A table a pass, with what it was told."""
    lines: list[str] = []
    for one in passes:
        lines += ["", "[[pass]]", f'name = "{one.name}"']
        lines += fields(one.config.model_dump(mode="json", exclude_unset=True))
    return "\n".join(lines) + "\n"


def fields(values: Mapping[str, object]) -> list[str]:
    """JSON writes numbers, strings and lists as TOML does."""
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
