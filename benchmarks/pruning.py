"""Blocks out of emoji-sd: the knapsack against simpler ways to choose them, and what was predicted against what came.

    python benchmarks/pruning.py [--shares 0.9,0.8,0.65,0.5] [--chart out/pruning.png] [--json FILE] [--predicted]
    python benchmarks/pruning.py --kinds convolutions --by convolution,merged    the resnets' convolutions as one

Every policy has each share of the float program's latency as its budget. Blocks are chosen by calls of prompts of
concepts that the model has never seen, and errors are told on calls of others: |given - wanted| / |wanted| of the
UNet's output over whole trajectories. Latency is measured on this machine, block by block and for each program that
comes of it, or, with --predicted, what the profile says. Three panels: error against latency, the sum of losses against
the loss of the sum, the sum of savings against the saving of the sum. Losses and points are kept in the cache: run it
again to go on. What pictures look like after it is in benchmarks/precision.py, rows "pruned".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from fick.compiler.recipes import Recipe
from fick.ir.files import write_whole
from fick.ir.program import Program
from fick.passes.base import Arrays, Context
from fick.passes.costs import CostModel
from fick.passes.measuring import output_error
from fick.passes.prune import PruneBlocksConfig
from fick.passes.prune.simpler import POLICIES
from fick.passes.prune.study import Study
from fick.targets import profile

MARKS = {
    "knapsack": ("the knapsack", "o", "#2060b0"),
    "greedy": ("greedy, by loss for latency", "^", "#d08030"),
    "magnitude": ("smallest weights first", "s", "#888888"),
    "random": ("in an order drawn", "x", "#b03060"),
}
"""Labels, marks and colours."""


@dataclass(frozen=True)
class Point:
    """What a policy reaches with a share of the float program's latency. Losses are noise over signal, in power;
    ``profile_share`` is the latency by the profile's word alone, of the whole's.
    """

    policy: str
    share: float
    seed: int
    removed: Mapping[str, str]
    latency_s: float
    predicted_latency_s: float
    plain_latency_s: float
    profile_share: float
    predicted_loss: float
    loss: float
    output_error: float
    unseen_error: float


def main(
    shares: Annotated[
        str, typer.Option(help="Of the float program's latency, with commas.")
    ] = "0.9,0.8,0.65,0.5",
    seeds: Annotated[int, typer.Option(help="Orders drawn for a share.")] = 3,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="Take the profile's word for latency.")
    ] = False,
    target: Annotated[str, typer.Option(help="A device profile.")] = "host",
    model: Annotated[Path, typer.Option(help="The folder of a pipeline, with its prompts.")] = MODEL,
    pictures: Annotated[int, typer.Option(help="To choose by, and as many to judge by.")] = 8,
    steps: Annotated[int, typer.Option(help="Of each picture.")] = 20,
    calls: Annotated[int, typer.Option(help="By which blocks are measured.")] = 16,
    judged: Annotated[int, typer.Option(help="Calls that errors are told on.")] = 32,
    kinds: Annotated[str | None, typer.Option(help="Of blocks, with commas. [default: all]")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Ways for them to go, as convolution,merged of convolutions. [default: the pass's]"
        ),
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="A PNG.")] = Path("out/pruning.png"),
    json_file: JsonFile = None,
) -> None:
    """Print a table and draw it."""
    chosen = {name: told.split(",") for name, told in (("kinds", kinds), ("by", by)) if told is not None}
    config = PruneBlocksConfig.model_validate({"calls": calls, **chosen})
    with terminal() as reporter:
        costs = "predicted" if predicted else "measured"
        program, context, others = prepared(
            model, target, reporter, pictures=pictures, steps=steps, costs=costs
        )
        reporter.stage("maps")
        study = Study(program, context, config)
        reporter.stage("losses and savings")
        print(f"{len(study.candidates)} blocks, {len(study.problem.losses)} ways for them to go")
        unseen = spread(others, judged)
        reporter.stage("points")
        wanted = [float(share) for share in shares.split(",")]
        by_profile = Recipe().cost_model(profile.load(target), "float32")
        settings = [config.model_dump(mode="json"), costs, profile.load(target).model_dump_json()]
        finished = Points("pruning", program, context, unseen, settings)
        found = list(points(study, wanted, seeds, context, program, unseen, by_profile, finished))
        reporter.finish()
    show(found)
    if chart is not None:
        chart.parent.mkdir(parents=True, exist_ok=True)
        write_whole(chart, draw(found, model.name))
    write_json(json_file, [asdict(one) for one in found])


def points(
    study: Study,
    shares: Sequence[float],
    seeds: int,
    context: Context,
    program: Program,
    unseen: Sequence[Arrays],
    by_profile: CostModel,
    finished: Points,
) -> Iterator[Point]:
    quiet = replace(context, progress=None)
    whole = by_profile(program).total("latency")
    plain = study.plain.total("latency")

    def came_of(chosen: Sequence[int]) -> dict[str, Any]:
        found = study.outcome(chosen)
        return {
            "removed": dict(found.removed),
            "latency_s": found.cost.total("latency"),
            "predicted_latency_s": found.predicted_cost["latency"],
            "plain_latency_s": plain,
            "profile_share": by_profile(found.program).total("latency") / whole,
            "predicted_loss": found.predicted_loss,
            "loss": found.loss,
            "output_error": found.output_error,
            "unseen_error": output_error(quiet, program, found.program, unseen),
        }

    for share in shares:
        limits = {"latency": share * plain}
        for policy, seed in [*((name, 0) for name in MARKS), *(("random", one) for one in range(1, seeds))]:
            chosen = (
                study.problem.solve(limits) if policy == "knapsack" else POLICIES[policy](study, limits, seed)
            )
            if chosen is None:
                continue  # this way the budget is not kept
            told = [[one.candidate.name, one.by] for one in map(study.options.__getitem__, chosen)]
            yield Point(policy, share, seed, **finished.kept(told, lambda chosen=chosen: came_of(chosen)))


def show(found: Sequence[Point]) -> None:
    lines = [
        (
            f"{one.share:g}x",
            one.policy,
            str(len(one.removed)),
            f"{1e3 * one.latency_s:.2f}",
            f"{1e3 * one.predicted_latency_s:.2f}",
            f"{one.loss:.3g}",
            f"{one.predicted_loss:.3g}",
            f"{100 * one.output_error:.2f}",
            f"{100 * one.unseen_error:.2f}",
        )
        for one in found
    ]
    headings = ("share", "policy", "blocks", "ms", "by sums", "loss", "by sums", "repaired %", "unseen %")
    show_table("blocks out: error of the output against time a step", headings, lines, words=2)


def draw(found: Sequence[Point], name: str) -> bytes:
    figure = Figure(figsize=(15.6, 4.6), dpi=130, layout="constrained")
    errors, losses, savings = figure.subplots(1, 3)
    for policy, (label, mark, colour) in MARKS.items():
        own = sorted((one for one in found if one.policy == policy), key=lambda one: one.latency_s)
        style = {"color": colour, "label": label, "ms": 5}
        joined = "-" if policy == "knapsack" else ""
        spent = [100 * one.latency_s / one.plain_latency_s for one in own]
        errors.plot(spent, [100 * one.unseen_error for one in own], mark, ls=joined, **style)
        losses.plot([one.predicted_loss for one in own], [one.loss for one in own], mark, ls="", **style)
        by_sums, came = (
            [100 * (1 - getattr(one, field) / one.plain_latency_s) for one in own]
            for field in ("predicted_latency_s", "latency_s")
        )
        savings.plot(by_sums, came, mark, ls="", **style)
        told = [100 * (1 - one.profile_share) for one in own]
        savings.plot(told, came, mark, ls="", ms=5, color=colour, fillstyle="none")
    errors.set(yscale="log", xlabel="time a step [% of the whole]", ylabel="error of the UNet's output [%]")
    losses.set(xscale="log", yscale="log", xlabel="sum of the losses of each", ylabel="loss of all together")
    savings.set(
        xlabel="sum of the savings of each; hollow: by the profile [%]", ylabel="saving of all together [%]"
    )
    for axes in (losses, savings):
        low, high = max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color="#cccccc", zorder=0)
    for axes in (errors, losses, savings):
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title(f"{name}, calls of prompts not chosen by", fontsize=9, loc="left")
    return png(figure)


if __name__ == "__main__":
    typer.run(main)
