"""docs/recipes.md, from the configurations that passes declare: names, keys, defaults, what each may be."""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fick.compiler.calibration import Calibration
from fick.compiler.recipes import PASSES

INTRODUCTION = """# Recipes

Written by `make docs` from the code; do not edit. A recipe is a TOML file of optional passes, which run in its order,
and of the pictures that they are calibrated with; [examples/recipes](../examples/recipes) has some. `fick compile`,
`fick estimate`, `fick tune` and the spaces of `fick explore` take one.

```toml
costs = "predicted"  # or "measured": passes with a budget then time programs on this machine

[calibration]
prompts = "prompts.txt"

[[pass]]
name = "split-joins"

[[pass]]
name = "quantise"
estimator = "mse"
```

How passes work, and what may stand before what, is told in
[architecture.md](architecture.md#passes-one-transformation-a-file).
"""

WORDS = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, "## [calibration]\n", _table(Calibration)]
    for name, one in sorted(PASSES.items()):
        told = one.__doc__ or sys.modules[one.__module__].__doc__ or ""
        purpose, _, _ = inspect.cleandoc(told).partition("\n\n")
        parts += [f"## {name}\n", f"{purpose}\n"]
        if one.Config.model_fields:
            parts.append(_table(one.Config))
    return "\n".join(parts)


def _table(config: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_cell(field.description or '')} | {_allowed(field)} | {_default(field)} |"
        for name, field in config.model_fields.items()
    ]
    return "\n".join(["| key | meaning | may be | default |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _allowed(field: FieldInfo) -> str:
    return " ".join([_kind(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for one in metadata:
        for key, word in BOUNDS.items():
            if hasattr(one, key):
                yield f"{word} {getattr(one, key):g}"


def _kind(annotation: Any) -> str:
    """In words; what may be left out is of the kind that it is where it is not."""
    inner = [one for one in get_args(annotation) if one not in (type(None), ...)]
    origin = get_origin(annotation)
    if origin is Annotated:
        return " ".join([_kind(inner[0]), *_bounds(inner[1:])])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_kind, inner))
    if origin is Mapping:
        return f"table: {_kind(inner[1])}"
    if origin in (tuple, list):
        return f"list: {_kind(inner[0])}"
    return WORDS.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: it has to be given"
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f"`{json.dumps(default)}`"
