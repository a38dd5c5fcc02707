"""fick explore: which hardware, and which compression, for a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .arguments import (
    DramOption,
    JsonInsideOption,
    ModelArgument,
    SamplerOption,
    ShapeOption,
    StepsOption,
    place_or_inside,
    sampler_of,
    shapes,
)
from .output import out, show

EXAMPLE = (
    "Example: `fick explore sd-1.5 --space examples/spaces/zcu102.toml --objectives latency,dsp,bram -o out/zcu102`, "
    "then `fick explore sd-1.5 --space examples/spaces/zcu102.toml --explain 1234`"
)

MOST_SHOWN = 12
"""Designs of the front on the terminal."""


def command(
    model: ModelArgument,
    space: Annotated[
        Path, typer.Option("--space", metavar="FILE.toml", help="What may be varied: see docs/explore.md.")
    ],
    objectives: Annotated[
        str,
        typer.Option(
            help="Of latency, image_latency, energy, core_energy, ema, power, dsp, bram, lut, area, quality; commas "
            "between."
        ),
    ] = "latency,dsp,bram",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where results go.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="grid, random, nsga2, nsga3 or tpe. [default: grid up to 50,000 designs, else nsga2]"
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000, help="Designs that other methods than a grid ask for. [default: 2000]"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same front. [default: 0]")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Processes; 0 takes all cores. [default: 0]")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A Dask scheduler, such as tcp://127.0.0.1:8786, in place of processes."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An SQLAlchemy URL. [default: points.db in the output folder]"),
    ] = None,
    steps: StepsOption = 50,
    dram: DramOption = None,
    shape: ShapeOption = None,
    sampler: SamplerOption = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", help="Measured qualities. [default: quality.toml beside the model]"
        ),
    ] = None,
    design: Annotated[
        int | None,
        typer.Option("--explain", metavar="DESIGN", help="Say what binds a design, and what to change next."),
    ] = None,
    json_file: JsonInsideOption = None,
) -> None:
    """Search hardware and software together for MODEL, and write the designs that no other one beats."""
    from ...ir.errors import UserError
    from ..explore import explain, explore, state
    from ..progress import terminal

    if (output is None) == (design is None):
        raise UserError("give either -o FOLDER, to search, or --explain DESIGN, to ask about one design.")
    how = {
        "method": method, "count": count, "seed": seed, "jobs": jobs, "cluster": cluster, "storage": storage,
    }  # fmt: skip
    searching: dict[str, Any] = {name: value for name, value in how.items() if value is not None}
    if design is not None and searching:
        raise UserError(
            f"--explain asks about one design and searches none; leave out --{next(iter(searching))}."
        )
    place_or_inside(output, json_file)
    with terminal() as reporter:
        reporter.stage("programs")
        stated = state(
            model, space, objectives=objectives, steps=steps, dram=dram, shapes=shapes(shape),
            sampler=sampler_of(sampler), quality=quality, reporter=reporter,
        )  # fmt: skip
        if output is None:
            assert design is not None
            facts = explain(stated, design)
            reporter.finish()
            _explained(facts, json_file)
            return
        facts = explore(
            stated, output, **{**searching, "jobs": jobs or os.cpu_count() or 1}, reporter=reporter
        )
    counts = facts["counts"]
    rows = {
        "space": f"{facts['size']:,} designs over {facts['hardware']}",
        "timed": f"{counts['evaluated']:,}; {counts['beaten']:,} could not reach the front, {counts['excluded']:,} "
        f"outside of the constraints, {counts['misfit']:,} do not fit the model",
        "front": f"{len(facts['front']):,} designs, hypervolume {facts['hypervolume']:.4f}",
        "results": f"{output}: report.html, points.csv, points.parquet, front/",
    }
    show(f"{facts['model']} by {facts['method']}", rows, json_file, facts)
    if str(json_file) != "-":
        out.print(_front(facts))


def _front(facts: Mapping[str, Any]) -> Table:
    """The front from one end of the first objective to the other."""
    objectives = facts["objectives"]
    table = Table("design", box=None)
    for name in objectives:
        table.add_column(name, justify="right")
    table.add_column("choices", overflow="fold")
    front = sorted(facts["front"], key=lambda one: one["measures"][objectives[0]])
    every = max(1, -(-len(front) // MOST_SHOWN))
    for one in front[::every]:
        chosen = ", ".join(_said(name.rpartition(".")[2], value) for name, value in one["labels"].items())
        table.add_row(
            str(one["design"]), *(f"{one['measures'][name]:,.5g}" for name in objectives), escape(chosen)
        )
    if every > 1:
        table.caption = f"every {every}th of {len(front)}; all are in front/"
    return table


def _explained(facts: Mapping[str, Any], json_file: Path | None) -> None:
    rows = {
        "is": ", ".join(_said(name, value) for name, value in facts["labels"].items()),
        "costs": ", ".join(f"{name} {value:,.5g}" for name, value in facts["measures"].items()),
        "bound by": ", ".join(
            f"{name} {share:.0%}" for name, share in sorted(facts["bound"].items(), key=lambda one: -one[1])
        )
        + " of the time",
        "units busy": ", ".join(f"{name} {share:.0%}" for name, share in facts["units"].items()),
        "next": next((_step(one) for one in facts["neighbours"]), "no neighbour betters it"),
    }
    show(f"design {facts['design']}", rows, json_file, facts)
    if str(json_file) != "-" and facts["neighbours"]:
        table = Table(
            "change", box=None, title=f"Neighbours that better {facts['objective']}", title_justify="left"
        )
        for name in ("better by", "price", "design"):
            table.add_column(name, justify="right")
        for one in facts["neighbours"]:
            changed = ", ".join(_said(name, value) for name, value in one["changes"].items())
            table.add_row(escape(changed), f"{one['gain']:.2%}", f"{one['price']:+.2%}", str(one["design"]))
        out.print(table)


def _said(name: str, value: float | str) -> str:
    return f"{name} {value}" if isinstance(value, str) else f"{name} {value:,.12g}"


def _step(one: Mapping[str, Any]) -> str:
    changed = ", ".join(_said(f"{name} to", value) for name, value in one["changes"].items())
    grows = [f"{name} {share:+.1%}" for name, share in one["growth"].items() if abs(share) > 5e-4]
    return f"{changed}: {one['gain']:.2%} better for {', '.join(grows) or 'nothing'}"
