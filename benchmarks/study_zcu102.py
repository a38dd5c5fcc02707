"""The best ZCU102 design for SD-1.5 in W4A8 with caching: searches, and writes docs/study-zcu102.md and its plots.

    python benchmarks/study_zcu102.py [--folder out/study-zcu102]

The space is examples/spaces/zcu102-cached.toml, walked whole for each program by itself: beside one that does less
the others would have no place on a front that knows no quality. What was timed stays in --folder, where an interrupted
run goes on. Programs with a cache are made once, in some minutes each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from fick.compiler.explore import Stated, explain, explore, state
from fick.compiler.figures import png
from fick.compiler.progress import terminal
from fick.hwmodel.explore.space import SOFTWARE, Axis
from fick.ir.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "examples" / "spaces" / "zcu102-cached.toml"
PAGE = ROOT / "docs" / "study-zcu102.md"
STEPS, JOBS = 50, 2
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

Point = Mapping[str, Any]

HEAD = """# The best ZCU102 design for SD-1.5 in W4A8 with caching

Written by `python benchmarks/study_zcu102.py`; do not edit. The space is
[examples/spaces/zcu102-cached.toml](../examples/spaces/zcu102-cached.toml): one, two or four of SDA's machine with
other arrays, clocks, lanes and buffers, and SD-1.5 whole or with DeepCache at intervals of 2, 3 and 5, {steps} steps
an image. All of it is modelled: no design was built, that a clock of 250 MHz is reached is assumed, LUTs rest on
assumed sizes, and UltraRAM is not there to be used. What caching costs in quality is not in this table: SD-1.5's
pictures were not measured.
"""


def main(
    folder: Annotated[Path, typer.Option(help="What was timed.")] = Path("out/study-zcu102"),
    model: Annotated[str, typer.Option(help="Another model, for a try.")] = "sd-1.5",
    space: Annotated[Path, typer.Option(help="Another space, for a try.")] = SPACE,
    page: Annotated[Path, typer.Option(help="The page; its plot lies beside it.")] = PAGE,
) -> None:
    """Search, and write."""
    with terminal() as reporter:
        reporter.stage("programs")
        stated = state(model, space, objectives="image_latency,dsp,bram", steps=STEPS, reporter=reporter)
        searched = {
            program: (alone, explore(alone, folder / program, method="grid", jobs=JOBS, reporter=reporter))
            for program in stated.problem.space.software
            for alone in [with_one(stated, program)]
        }
    write_whole(page.with_suffix(".png"), plot([facts for _, facts in searched.values()]))
    write_whole(page, "\n".join([HEAD.format(steps=STEPS), *body(searched, page.stem)]).encode())
    print(f"{page}; interactive: {folder}/PROGRAM/report.html")


def with_one(stated: Stated, program: str) -> Stated:
    """The same with one program."""
    space = stated.problem.space
    axes = tuple(Axis(SOFTWARE, {program: {}}) if axis.name == SOFTWARE else axis for axis in space.axes)
    return replace(stated, problem=replace(stated.problem, space=replace(space, axes=axes)))


def body(searched: Mapping[str, tuple[Stated, Mapping[str, Any]]], name: str) -> list[str]:
    every = [facts for _, facts in searched.values()]
    fastest: dict[str, Point] = {
        program: min(facts["front"], key=seconds) for program, (_, facts) in searched.items()
    }
    program, best = min(fastest.items(), key=lambda one: seconds(one[1]))
    advice, published = explain(searched[program][0], best["design"]), every[0]["published"].get("sda")
    counts = {kind: sum(facts["counts"][kind] for facts in every) for kind in every[0]["counts"]}
    lines = [
        f"Of {sum(facts['size'] for facts in every):,} designs {counts['evaluated']:,} were timed; "
        f"{counts['beaten']:,} could not have reached a front whatever their buffers, {counts['excluded']:,} do not "
        f"fit the ZCU102, {counts['misfit']:,} not the model.",
        f"{sum(len(facts['front']) for facts in every):,} are on their program's front.",
        "",
        f"![Seconds an image over block RAMs, by program]({name}.png)",
        "",
        "| program, fastest design | seconds an image | DSPs | block RAMs |",
        "| --- | --- | --- | --- |",
    ]
    if published:
        lines.append(f"| SDA as published, whole | {row(published)} |")
    lines += [f"| {program}, {one['design']} | {row(one['measures'])} |" for program, one in fastest.items()]
    lines += ["", "| what they choose | " + " | ".join(fastest) + " |", "| --- |" + " --- |" * len(fastest)]
    for key in (key for key in best["labels"] if key != SOFTWARE):
        chosen = " | ".join(label(one["labels"][key]) for one in fastest.values())
        lines.append(f"| {key.rpartition('.')[2]} | {chosen} |")
    shares = ", ".join(
        f"{kind} {share:.0%}" for kind, share in sorted(advice["bound"].items(), key=lambda one: -one[1])
    )
    lines += ["", f"The fastest, {program}, {best['design']}, is bound by: {shares} of its time."]
    for one in advice["neighbours"][:1]:
        changed = ", ".join(f"{key} to {label(value)}" for key, value in one["changes"].items())
        lines.append(f"Its next cheapest improvement would be {changed}: {one['gain']:.1%} less time.")
    if not advice["neighbours"]:
        lines.append("None of its neighbours in the space that fit is faster.")
    return [*lines, ""]


def label(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.12g}"


def seconds(one: Point) -> float:
    return one["measures"]["image_latency_s"]


def row(measures: Mapping[str, float]) -> str:
    return f"{measures['image_latency_s']:.1f} | {measures['dsp']:.0f} | {measures['bram36']:.0f}"


def plot(every: Sequence[Mapping[str, Any]]) -> bytes:
    """The fronts: seconds an image over block RAMs and over DSPs, by program."""
    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    plots = figure.subplots(1, 2, sharey=True)
    for axes, (column, title) in zip(plots, (("bram36", "block RAMs"), ("dsp", "DSPs")), strict=True):
        for facts, colour in zip(every, COLOURS, strict=False):
            some = [one["measures"] for one in facts["front"]]
            axes.scatter(
                [each[column] for each in some], [each["image_latency_s"] for each in some],
                s=14, color=colour, label=facts["front"][0]["labels"][SOFTWARE],
            )  # fmt: skip
        if published := every[0]["published"].get("sda"):
            axes.scatter(
                [published[column]],
                [published["image_latency_s"]],
                marker="D",
                s=70,
                color="black",
                label="SDA",
            )
        axes.set_xlabel(title)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    plots[0].set_ylabel("seconds an image")
    plots[0].legend()
    return png(figure)


if __name__ == "__main__":
    typer.run(main)
