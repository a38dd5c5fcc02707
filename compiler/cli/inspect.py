"""fick inspect: what is in a model or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...ir.errors import UserError
from .arguments import JsonOption, ShapeOption, shapes
from .output import line, show

EXAMPLE = "Example: `fick inspect sd-1.5`, `fick inspect terrain.fick` or `fick inspect terrain-mali.fick --kernels`"


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|BUNDLE", help="What `fick compile` takes, or a .fick file.")
    ],
    shape: ShapeOption = None,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels", help="Of a GPU's bundle: what each kernel computes, moves and takes, as predicted."
        ),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Say what is in a model or a bundle: inputs, operators, blocks, memory."""
    from ..inspection import inspect_bundle, inspect_model
    from ..progress import terminal

    if kernels:
        _show_kernels(model, json_file)
        return
    if model.endswith(".fick"):
        if shape:
            raise UserError(
                f"{model} has its shapes already; give --shape with a model that leaves them open"
            )
        facts = inspect_bundle(Path(model))
    else:
        with terminal() as reporter:
            reporter.stage("import")
            facts = inspect_model(model, shapes(shape))
            reporter.finish()
    show(model, {key: line(value) for key, value in facts.items()}, json_file, facts)


def _show_kernels(bundle: str, json_file: Path | None) -> None:
    from ..costs.gpu import inspect_kernels

    if not bundle.endswith(".fick"):
        raise UserError(f"--kernels needs a bundle, and {bundle} is none; compile it for a GPU first")
    facts = inspect_kernels(Path(bundle))
    rows = {"source": f"{facts['source_bytes'] / 1e3:,.1f} kB"}
    for name, one in facts["figures"].items():
        rows[name] = f"{one['value']:g} ({one['label']}: {one['source']})"
    for place, found in facts["kernels"].items():
        rows[place] = f"{facts['predicted_seconds'][place] * 1e3:,.2f} ms predicted, {len(found)} kernels"
        rows |= {f"  {one['kernel']}": _kernel(one) for one in found}
    show(bundle, rows, json_file, facts)


def _kernel(one: dict[str, Any]) -> str:
    items, group = (" x ".join(map(str, one[name])) for name in ("items", "group"))
    return (
        f"{one['seconds'] * 1e6:,.0f} us ({one['bound']}) in {one['calls']}: {one['flops'] / 1e6:,.2f} Mflop, "
        f"{one['moved_bytes'] / 1e6:,.3f} MB, {one['intensity']:.1f} flop a byte; {items} items by {group}, "
        f"{one['registers']} registers, occupancy {one['occupancy']:.2f}"
    )
