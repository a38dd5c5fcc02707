"""The best ZCU102 design for SD-1.5 in W4A8 with caching: searches, and writes docs/study-zcu102.md and its plots.

    python benchmarks/study_zcu102.py [--folder out/study-zcu102]

The space is examples/spaces/zcu102-cached.toml. What was timed stays in --folder, where an interrupted run goes on.
Programs with a cache are made once, in some minutes each.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from fick.compiler.explore import Stated, explain, explore, state
from fick.compiler.progress import terminal
from fick.ir.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "examples" / "spaces" / "zcu102-cached.toml"
PAGE = ROOT / "docs" / "study-zcu102.md"
PLOT = ROOT / "docs" / "study-zcu102.png"
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
        facts = explore(stated, folder, jobs=JOBS, reporter=reporter)
    write_whole(page.with_suffix(".png"), plot(facts))
    write_whole(page, "\n".join([HEAD.format(steps=STEPS), *body(stated, facts, page.stem)]).encode())
    print(f"{page}; interactive: {folder / 'report.html'}")


def body(stated: Stated, facts: Mapping[str, Any], name: str) -> list[str]:
    front: Sequence[Point] = sorted(facts["front"], key=seconds)
    counts, published = facts["counts"], facts["published"].get("sda")
    best = front[0]
    advice = explain(stated, best["design"])
    lines = [
        f"Of {facts['size']:,} designs {counts['evaluated']:,} were timed; {counts['beaten']:,} could not have reached "
        f"the front whatever their buffers, {counts['excluded']:,} do not fit the ZCU102, {counts['misfit']:,} not the "
        f"model. {len(front):,} are on the front.",
        "",
        f"![Seconds an image over block RAMs, by program]({name}.png)",
        "",
        "| design | program | seconds an image | DSPs | block RAMs | choices |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    if published:
        lines.append(f"| SDA as published | whole | {row(published)} | |")
    fastest = {one["labels"]["software"]: one for one in reversed(front)}
    for one in sorted(fastest.values(), key=seconds):
        labels = {key.rpartition(".")[2]: value for key, value in one["labels"].items() if key != "software"}
        chosen = ", ".join(f"{key} {label(value)}" for key, value in labels.items())
        lines.append(f"| {one['design']} | {one['labels']['software']} | {row(one['measures'])} | {chosen} |")
    shares = ", ".join(
        f"{kind} {share:.0%}" for kind, share in sorted(advice["bound"].items(), key=lambda one: -one[1])
    )
    lines += ["", f"The fastest, design {best['design']}, is bound by: {shares} of its time."]
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


def plot(facts: Mapping[str, Any]) -> bytes:
    """The front: seconds an image over block RAMs and over DSPs, by program."""
    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    plots = figure.subplots(1, 2, sharey=True)
    programs = list(dict.fromkeys(one["labels"]["software"] for one in facts["front"]))
    for axes, (column, title) in zip(plots, (("bram36", "block RAMs"), ("dsp", "DSPs")), strict=True):
        for program, colour in zip(programs, COLOURS, strict=False):
            some = [one["measures"] for one in facts["front"] if one["labels"]["software"] == program]
            axes.scatter(
                [each[column] for each in some], [each["image_latency_s"] for each in some],
                s=14, color=colour, label=program,
            )  # fmt: skip
        if published := facts["published"].get("sda"):
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
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


if __name__ == "__main__":
    typer.run(main)
