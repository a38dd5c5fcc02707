"""fick estimate: what a model would cost on an accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .arguments import (
    DramOption,
    JsonOption,
    RecipeOption,
    SamplerOption,
    ShapeOption,
    StepsOption,
    json_place,
    place,
    sampler_of,
    shapes,
)
from .output import megabytes, out, show, write_json, write_result

EXAMPLE = (
    "Example: `fick estimate sd-1.5 --hardware sda --steps 50 -o sd.html` or "
    "`fick estimate layers.csv --hardware systolic-32x32 --json -`"
)

MOST_SHOWN = 10
LONGEST_NAME = 21
"""On the terminal; the end tells one operator from another."""


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|BUNDLE|TOPOLOGY.csv",
            help="What `fick compile` takes, a .fick file for any target, or a SCALE-Sim topology table.",
        ),
    ],
    hardware: Annotated[
        str, typer.Option("--hardware", metavar="NAME|FILE.toml", help="sda, dbsc, systolic-32x32 or a spec.")
    ],
    steps: StepsOption = 50,
    dram: DramOption = None,
    shape: ShapeOption = None,
    recipe: RecipeOption = None,
    sampler: SamplerOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="REPORT.html",
            help="Charts, as a page that needs no network.",
            callback=place,
        ),
    ] = None,
    trace_file: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE.json", help="The time line, for Perfetto.", callback=json_place
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Estimate cycles, energy and external memory accesses of MODEL on an accelerator."""
    from ...hwmodel.report import page, trace
    from ..estimate import estimate
    from ..progress import terminal

    with terminal() as reporter:
        reporter.stage("estimate")
        facts = estimate(
            model, hardware, steps=steps, dram=dram, shapes=shapes(shape), recipe=recipe,
            sampler=sampler_of(sampler), reporter=reporter,
        )  # fmt: skip
        reporter.finish()
    if output is not None:
        write_result(output, page(facts).encode())
    if trace_file is not None:
        write_json(trace_file, trace(facts))
    show(f"{facts['model']} on {facts['hardware']}", _headline(facts), json_file, facts)
    if str(json_file) != "-":
        out.print(_stages(facts))
        out.print(_operators(facts))


def _headline(facts: Mapping[str, Any]) -> dict[str, str]:
    energy, static = facts["step_energy_mj"], facts["step_static_mj"]
    parts = [f"{part} {_millijoules(one)}" for part, one in energy.items()]
    moved = [f"{name} {megabytes(count)}" for name, count in facts["ema_bytes"].items() if count]
    rows = {
        "a step": f"{facts['step_latency_s']:.4g} s, {facts['step_cycles']:,} cycles at "
        f"{facts['clock_hz'] / 1e6:g} MHz",
        f"an image of {facts['steps']} steps": f"{facts['image_latency_s']:.4g} s",
        "multiply-accumulates": f"{facts['macs'] / 1e9:,.4g} G a step; array busy {facts['array_busy']:.0%}",
        "external accesses": f"{megabytes(sum(facts['ema_bytes'].values()))} a step: {', '.join(moved)}",
        "energy a step": f"{_millijoules(sum(energy.values()))}: {', '.join(parts)}; "
        f"{_millijoules(sum(static.values()))} of it leakage and other constant power",
        "DRAM table": facts["dram"],
    }
    if facts["resources"]:
        taken = {name: sum(parts.values()) for name, parts in facts["resources"].items()}
        rows["resources"] = ", ".join(f"{_three_figures(taken[name])} {RESOURCES[name]}" for name in taken)
    for one in facts["passes"]:
        effect = {key: value for key, value in one["effect"].items() if isinstance(value, float)}
        rows[f"pass {one['pass']}"] = ", ".join(f"{key} {value:.3g}" for key, value in effect.items())
    if facts["random_weights"]:
        rows["weights"] = "random: sizes are all that counts here"
    return rows


def _stages(facts: Mapping[str, Any]) -> Table:
    table = _table("Stages of a step", "stage")
    for one in facts["stages"]:
        table.add_row(escape(one["stage"]), *_costs(one, 1, facts["steps"], facts))
    return table


def _operators(facts: Mapping[str, Any]) -> Table:
    """Those that take most of an image; operators that cost alike are one line."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for one in facts["operators"]:
        alike.setdefault(str([one[key] for key in ALIKE]), []).append(one)
    costliest = sorted(alike.values(), key=lambda ones: -ones[0]["cycles"] * ones[0]["runs"] * len(ones))
    table = _table(f"Where the time of {len(facts['operators'])} operators goes", "operator")
    table.add_column("bound by", no_wrap=True)
    for ones in costliest[:MOST_SHOWN]:
        first, name = ones[0], ones[0]["name"]
        if len(name) > LONGEST_NAME:
            name = "…" + name[1 - LONGEST_NAME :]
        times = f"{len(ones)} x " if len(ones) > 1 else ""
        costs = _costs(first, len(ones), first["runs"], facts)
        table.add_row(times + escape(name), *costs, first["bound"])
    return table


RESOURCES = {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT", "area_mm2": "mm2"}
ALIKE = ("variant", "kind", "shape", "bits", "cycles", "bound", "ema_bytes")


def _table(title: str, what: str) -> Table:
    table = Table(box=None, title=title, title_justify="left")
    table.add_column(what, no_wrap=True)
    for name in ("cycles", "time", "busy", "MB", "mJ"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _costs(
    one: Mapping[str, Any], alike: int, runs: int, facts: Mapping[str, Any]
) -> tuple[str, str, str, str, str]:
    """Costs of ``alike`` ones; their share of an image's time, which has each so many ``runs``; the share of their
    cycles in which the array multiplies.
    """
    cycles = alike * one["cycles"]
    image_cycles = facts["image_latency_s"] * facts["clock_hz"]
    return (
        f"{cycles:,}",
        f"{runs * cycles / image_cycles:.1%}",
        f"{one['array_busy']:.0%}",
        f"{alike * sum(one['ema_bytes'].values()) / 1e6:,.1f}",
        _three_figures(alike * sum(one["energy_mj"].values())),
    )


def _three_figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _millijoules(energy: float) -> str:
    return f"{_three_figures(energy)} mJ"
