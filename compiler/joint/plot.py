"""A joint search as a picture: what trials cost and what their pictures are worth, and how they parted the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ..figures import png
from .halving import Trial
from .split import ALONE

DOTS_PER_INCH = 130
SMALLEST, LARGEST = 18, 110
"""Areas of marks, of the fewest and the most pictures that a trial was judged by [points squared]."""

MARKS = dict(zip(ALONE, ("^", "s", "D"), strict=True))


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of costs and scores those that no other point betters in both, by cost."""
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda one: (one[0], -one[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def draw(
    trials: Sequence[Trial], chosen: Trial, plain: Mapping[str, float], quantity: str, title: str
) -> bytes:
    """A PNG; costs are in shares of ``plain`` of one ``quantity``."""
    judged = [one for one in trials if one.measures]
    most = max(one.pictures for one in judged)
    costs = {one.number: one.cost[quantity] / plain[quantity] for one in judged}
    areas = [SMALLEST + (LARGEST - SMALLEST) * one.pictures / most for one in judged]
    figure = Figure(figsize=(11.5, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    speed, parts = figure.subplots(1, 2)
    scores = [one.score for one in judged]
    points = speed.scatter([costs[one.number] for one in judged], scores, areas, scores, cmap="viridis")
    best = front([(costs[one.number], one.score) for one in judged])
    speed.step(*zip(*best, strict=True), where="post", color="#999999", zorder=0, label="front")
    alone = {split: name for name, split in ALONE.items()}
    for one in trials:
        name = alone.pop(one.split, None)
        if name is not None and (one.measures or one.reason):
            at = ([costs[one.number]], [one.score]) if one.measures else ([], [])
            told = name if one.measures else f"{name}: not within the budget"
            speed.plot(*at, MARKS[name], ms=13, mfc="none", color="#b03060", label=told)
    speed.plot(costs[chosen.number], chosen.score, "o", ms=15, mfc="none", color="#000000", label="chosen")
    speed.set(xlabel=f"{quantity} of a step, of the float model's [1]", ylabel="score of pictures [1]")
    left = [one for one in trials if one.reason]
    parts.scatter(
        [one.split.removed for one in left],
        [one.split.rounded for one in left],
        SMALLEST,
        "#bbbbbb",
        marker="x",
    )
    parts.scatter(
        [one.split.removed for one in judged],
        [one.split.rounded for one in judged],
        areas,
        scores,
        cmap="viridis",
    )
    parts.plot(chosen.split.removed, chosen.split.rounded, "o", ms=15, mfc="none", color="#000000")
    parts.set(
        xlabel="part of the budget that blocks save [1]", ylabel="part of the rest that formats save [1]",
        xlim=(-0.05, 1.05), ylim=(-0.05, 1.05),
    )  # fmt: skip
    figure.colorbar(points, ax=parts, label="score of pictures [1]")
    speed.set_title(title, fontsize=9, loc="left")
    parts.set_title("crosses: beyond what passes can keep to", fontsize=9, loc="left")
    speed.legend(frameon=False, fontsize=8)
    for axes in (speed, parts):
        axes.grid(alpha=0.3)
    return png(figure)
