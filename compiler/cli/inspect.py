"""fick inspect: what is in a model or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import JsonOption, ShapeOption, shapes
from .output import line, show

EXAMPLE = "Example: `fick inspect sd-1.5` or `fick inspect terrain.fick`"


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL|BUNDLE")],
    shape: ShapeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Say what is in a model or a bundle: inputs, operators, blocks, memory."""
    from ..inspection import inspect_bundle, inspect_model
    from ..progress import terminal

    if model.endswith(".fick"):
        facts = inspect_bundle(Path(model))
    else:
        with terminal() as reporter:
            reporter.stage("import")
            facts = inspect_model(model, shapes(shape))
            reporter.finish()
    show(model, {key: line(value) for key, value in facts.items()}, json_file, facts)
