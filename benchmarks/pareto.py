"""Formats by the optimiser against simpler ways to spend bits, on emoji-sd: error against bytes and against latency.

    python benchmarks/pareto.py [--points 9] [--formats float32,w8a8,w4a8] [--chart out/pareto.png] [--json FILE]

Every policy is measured end to end: uniform formats, Apple's recipe (each layer in the fewest bits whose isolated PSNR
is above a threshold), and the optimiser with what each of those costs as its budget. Formats are chosen by calls of
prompts of concepts that the model has never seen, and errors are told on calls of others: |given - wanted| / |wanted|
of the UNet's output over whole trajectories. Costs are those predicted for the target. Sensitivities and points are
kept in the cache: run it again to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from emoji_rows import MODEL
from json_file import JsonFile, write_json
from matplotlib.figure import Figure
from tables import show_table
from unseen import Points, prepared, spread

from fick.compiler.figures import png
from fick.compiler.progress import terminal
from fick.ir.files import write_whole
from fick.ir.program import Program
from fick.passes.assign import AssignConfig
from fick.passes.assign.pareto import Point, settings
from fick.passes.assign.study import Study
from fick.passes.base import Arrays, Context
from fick.passes.measuring import output_error
from fick.passes.split_joins import SplitJoins
from fick.targets import profile

QUANTITIES = {"bytes": ("MB of weights", 1e6), "latency": ("ms a step, predicted", 1e-3)}
"""What is spent, with its unit in the picture."""

POLICIES = {
    "uniform": ("uniform precision", "s", "#888888"),
    "thresholds": ("isolated PSNR above a threshold", "^", "#d08030"),
    "optimised": ("the optimiser", "o", "#2060b0"),
}
"""Labels, marks and colours."""


def main(
    points: Annotated[int, typer.Option(help="Thresholds of isolated PSNR.")] = 9,
    formats: Annotated[str, typer.Option(help="That a product may have, with commas.")] = "float32,w8a8,w4a8",
    quantities: Annotated[str, typer.Option(help="Of bytes and latency, with commas.")] = "bytes,latency",
    target: Annotated[str, typer.Option(help="A device profile.")] = "host",
    model: Annotated[Path, typer.Option(help="The folder of a pipeline, with its prompts.")] = MODEL,
    pictures: Annotated[int, typer.Option(help="To choose by, and as many to judge by.")] = 8,
    steps: Annotated[int, typer.Option(help="Of each picture.")] = 20,
    calls: Annotated[int, typer.Option(help="By which sensitivities are measured.")] = 8,
    errors: Annotated[
        str, typer.Option(help="What single products lose: measured, as isolated PSNR is, or gradients.")
    ] = "measured",
    judged: Annotated[int, typer.Option(help="Calls that errors are told on.")] = 32,
    chart: Annotated[Path | None, typer.Option(help="A PNG.")] = Path("out/pareto.png"),
    json_file: JsonFile = None,
) -> None:
    """Print a table for each quantity, and draw both."""
    config = AssignConfig.model_validate(
        {
            "formats": formats.split(","),
            "estimator": "mse",
            "clip_weights": True,
            "calls": calls,
            "errors": errors,
        }
    )
    with terminal() as reporter:
        whole, context, others = prepared(model, target, reporter, pictures=pictures, steps=steps)
        program, _ = SplitJoins().run(whole, context)
        reporter.stage("ranges")
        study = Study(program, context, config)
        reporter.stage("sensitivities")
        print(f"{len(study.problem.errors)} products")
        unseen = spread(others, judged)
        from_what = [config.model_dump(mode="json"), profile.load(target).model_dump_json()]
        finished = Points("pareto", program, context, unseen, from_what)
        found: dict[str, list[dict[str, Any]]] = {}
        for quantity in quantities.split(","):
            reporter.stage(quantity)
            found[quantity] = [
                measured(study, policy, setting, assignment, context, program, unseen, finished)
                for policy, setting, assignment in settings(study, quantity, points)
            ]
        reporter.finish()
    for quantity, rows in found.items():
        show(quantity, rows)
    if chart is not None:
        chart.parent.mkdir(parents=True, exist_ok=True)
        write_whole(chart, draw(found, model.name))
    write_json(json_file, found)


def measured(
    study: Study,
    policy: str,
    setting: str,
    assignment: dict[str, Any],
    context: Context,
    program: Program,
    unseen: Sequence[Arrays],
    finished: Points,
) -> dict[str, Any]:
    """A point with its error on calls that nothing was chosen by."""

    def make() -> dict[str, Any]:
        outcome = study.outcome(assignment)
        error = output_error(replace(context, progress=None), program, outcome.program, unseen)
        return {**vars(Point.of(policy, setting, outcome)), "unseen_error": error}

    return {**finished.kept(sorted(assignment.items()), make), "policy": policy, "setting": setting}


def show(quantity: str, rows: Iterable[dict[str, Any]]) -> None:
    unit, size = QUANTITIES[quantity]
    lines = [
        (
            one["policy"],
            one["setting"],
            f"{one['cost'][quantity] / size:.2f}",
            f"{one['weight_bits']:.2f}",
            *(f"{100 * one[key]:.3f}" for key in ("predicted_error", "output_error", "unseen_error")),
        )
        for one in sorted(rows, key=lambda one: (one["cost"][quantity], one["policy"]))
    ]
    headings = ("policy", "setting", unit, "weight bits", "predicted %", "measured %", "unseen %")
    show_table(f"error of the output against {unit}", headings, lines, words=2)


def draw(found: dict[str, list[dict[str, Any]]], name: str) -> bytes:
    """A panel for each quantity, errors on unseen calls. What loses nothing has no place on the scale."""
    figure = Figure(figsize=(6.2 * len(found), 4.6), dpi=130, layout="constrained")
    for axes, (quantity, rows) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        unit, size = QUANTITIES[quantity]
        for policy, (label, mark, colour) in POLICIES.items():
            own = [one for one in rows if one["policy"] == policy and one["unseen_error"] > 0]
            own.sort(key=lambda one: one["cost"][quantity])
            spent = [one["cost"][quantity] / size for one in own]
            errors = [100 * one["unseen_error"] for one in own]
            joined = "-" if policy == "optimised" else ""
            axes.plot(spent, errors, mark, ls=joined, ms=5, color=colour, label=label)
        axes.set(yscale="log", xlabel=unit, ylabel="error of the UNet's output [%]")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
        axes.set_title(f"{name}, calls of prompts not chosen by", fontsize=9, loc="left")
    return png(figure)


if __name__ == "__main__":
    typer.run(main)
