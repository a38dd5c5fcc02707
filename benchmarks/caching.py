"""What reuse between steps does to emoji-sd's pictures, and what it saves: every row compiled, drawn, judged and timed.

    python benchmarks/caching.py [--prompts 256] [--steps 50 --steps 20] [--only NAME ...] [--json out/caching.json]

Each row is a recipe. Its bundle draws every prompt from the same seed as the float bundle without a cache, at guidance
5. Rows "fewer steps" are that bundle itself in shorter loops: what the same time buys without any of this. Seconds are
those of whole pictures, text encoder and decoder included, drawn in turns with that bundle. Calibration draws prompts
of concepts that the model has never seen. Bundles, drawings and finished rows are kept in --folder, and pareto.png
shows them: run it again to go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from emoji_rows import (
    BEST,
    GUIDANCE,
    Folder,
    Only,
    Passes,
    Prompts,
    asked,
    bundle,
    drawn,
    interval,
    kept,
    made_of,
    quantise,
)
from json_file import JsonFile, write_json
from matplotlib import colormaps
from matplotlib.figure import Figure
from tables import show_table

import fick
from fick.compiler.bench.rounds import measure
from fick.compiler.bundle.skeleton import manifest_of
from fick.compiler.figures import png
from fick.compiler.programs import structure
from fick.compiler.progress import Silent, terminal
from fick.compiler.quality.evaluate import Prompt
from fick.compiler.schedule_plot import draw
from fick.ir.files import write_whole
from fick.passes.base import Pass
from fick.passes.caching import (
    BlockCaching,
    BlockCachingConfig,
    DeepCache,
    DeepCacheConfig,
    FasterDiffusion,
    Fora,
    ForaConfig,
    PredictReuse,
    TGate,
    TGateConfig,
)
from fick.passes.correct import CorrectNoise, CorrectReuse
from fick.passes.schedule import ScheduleReuse, ScheduleReuseConfig
from fick.passes.split_joins import SplitJoins
from fick.runtime import TextToImage

Row = tuple[str, Passes]
"""The policy, whose rows one line of the plot joins, and the recipe."""


def scheduled(share: float) -> ScheduleReuse:
    return ScheduleReuse(ScheduleReuseConfig(budget=f"latency={share}x"))


def deep(interval: int, **settings: Any) -> DeepCache:
    return DeepCache(DeepCacheConfig(interval=interval, **settings))


def blocks(threshold: float) -> BlockCaching:
    return BlockCaching(BlockCachingConfig(threshold=threshold))


INTEGERS = (SplitJoins(), quantise(**BEST))
JOINT = (CorrectReuse(), CorrectNoise())
"""What is lost to reuse and to rounding together, fitted where the loop that has both really goes."""


def in_integers(cache: Pass[Any]) -> Passes:
    """Ranges are those of the loop that reuses."""
    return SplitJoins(), cache, quantise(**BEST)


UNCACHED, FEWER = "uncached", "fewer steps"
SHARES = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of the steps, in rows of fewer."""

ROWS: dict[str, Row] = {
    UNCACHED: ("uncached", ()),
    **{f"DeepCache N={n}": ("DeepCache", (deep(n),)) for n in (2, 3, 5, 10)},
    **{f"DeepCache N={n}, 3 deep": ("DeepCache, 3 deep", (deep(n, depth=3),)) for n in (2, 5)},
    **{f"DeepCache N={n}, centred": ("DeepCache, centred", (deep(n, spacing="centred"),)) for n in (3, 5)},
    **{
        f"DeepCache N={n}, predicted": ("DeepCache, predicted", (deep(n, steps=(20, 50)), PredictReuse()))
        for n in (3, 5)
    },
    "Faster Diffusion": ("Faster Diffusion", (FasterDiffusion(),)),
    **{f"T-GATE at {m}": ("T-GATE", (TGate(TGateConfig(gate=m)),)) for m in (0.2, 0.4)},
    **{f"FORA N={n}": ("FORA", (Fora(ForaConfig(interval=n)),)) for n in (2, 3, 5)},
    **{f"Block caching at {d}": ("Block caching", (blocks(d),)) for d in (0.15, 0.3, 0.6)},
    **{f"scheduled {s}x": ("scheduled", (scheduled(s),)) for s in (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)},
    "W8A8": ("W8A8", INTEGERS),
    **{f"W8A8, DeepCache N={n}": ("W8A8, DeepCache", (*INTEGERS, deep(n))) for n in (3, 5)},
    **{f"W8A8, scheduled {s}x": ("W8A8, scheduled", (*INTEGERS, scheduled(s))) for s in (0.5, 0.4, 0.3, 0.2)},
    **{
        f"W8A8 of DeepCache N={n}": ("W8A8 of DeepCache", in_integers(deep(n, steps=(20, 50))))
        for n in (3, 5, 10)
    },
    **{
        f"W8A8 of DeepCache N={n}, corrected": (
            "W8A8 of DeepCache, corrected",
            (*in_integers(deep(n, steps=(20, 50))), *JOINT),
        )
        for n in (3, 5, 10)
    },
    **{
        f"W8A8, scheduled {s}x, corrected": (
            "W8A8, scheduled, corrected",
            (*INTEGERS, scheduled(s), *JOINT),
        )
        for s in (0.4, 0.3, 0.2)
    },
}

MEASURES = {
    "category_accuracy": "category accuracy",
    "retrieval_accuracy": "retrieval",
    "frechet_distance": "Fréchet distance",
    "psnr_db": "PSNR [dB]",
}
ROUNDS = 12
"""In which a picture is timed with both bundles."""


def main(
    prompts: Prompts = 256,
    steps: Annotated[list[int] | None, typer.Option(help="DDIM steps. [default: 50 and 20]")] = None,
    only: Only = None,
    folder: Folder = Path("out/caching"),
    json_file: JsonFile = None,
) -> None:
    """Make the rows that are not there yet, print all and plot them."""
    folder.mkdir(parents=True, exist_ok=True)
    given = asked(prompts, only, ROWS)
    found: dict[str, dict[str, Any]] = {}
    with terminal() as reporter:
        reference = calibrated(UNCACHED, folder, reporter)
        for count in steps or (50, 20):
            for name in only or ROWS:
                path = calibrated(name, folder, reporter)
                found[f"{name}, {count} steps"] = row(name, path, reference, given, count, folder, reporter)
            for share in SHARES if UNCACHED in (only or ROWS) else ():
                found[f"{round(share * count)} of {count} steps"] = row(
                    UNCACHED, reference, reference, given, count, folder, reporter, share
                )
        reporter.finish()
    show(found)
    write_whole(folder / "pareto.png", pareto(found))
    write_json(json_file, found)


def calibrated(name: str, folder: Path, reporter: Silent) -> Path:
    """A row's bundle."""
    passes = ROWS[name][1]
    looks = any(not isinstance(one, (DeepCache, FasterDiffusion, TGate, Fora)) for one in passes)
    return bundle(name, passes, folder, reporter, looks=looks)[0]


def row(
    name: str, path: Path, reference: Path, prompts: list[Prompt], steps: int, folder: Path, reporter: Silent,
    share: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """One recipe in loops of so many steps, or a share of them, beside the reference in all; from the folder if it was
    made of the same bytes.
    """
    taken = max(1, round(share * steps))

    def make() -> dict[str, Any]:
        stage = f"{name}, {steps} steps"
        facts = drawn(stage, path, reference, prompts, folder, reporter, steps=taken, reference_steps=steps)
        program = structure(path)
        if taken in program.schedule:
            write_whole(folder / f"{path.stem}-{steps}.png", draw(program, taken))
        reporter.stage(f"{stage}: time")
        return {
            "policy": ROWS[name][0] if share == 1 else FEWER,
            "steps": steps,
            "order": " ".join(program.schedule.get(taken, ["full"] * taken)),
            "history": manifest_of(path)["components"]["unet"]["history"],
            **worth(facts),
            "image_s": in_turns(reference, path, prompts[0].text, steps, taken, reporter),
        }

    place = folder / "rows" / f"{path.stem}-{steps}{'' if taken == steps else f'-in-{taken}'}.json"
    return kept(place, made_of(path, reference, prompts, steps, taken), make)


def worth(facts: dict[str, Any]) -> dict[str, Any]:
    """The candidate's cost and ``MEASURES``, of what ``evaluate`` says."""
    judged = facts["judged"]["candidate"]
    return {
        "cost": facts["cost"]["candidate"],
        "psnr_db": facts["fidelity"]["psnr_db"],
        **{key: judged[key] for key in MEASURES if key != "psnr_db"},
    }


def in_turns(
    reference: Path, candidate: Path, prompt: str, steps: int, taken: int, reporter: Silent
) -> dict[str, Any]:
    """Seconds of pictures drawn with both, one after the other; the speed-up is the median of their ratios."""
    with fick.load(reference) as before, fick.load(candidate) as after:
        assert isinstance(before, TextToImage) and isinstance(after, TextToImage)
        runs = {
            name: lambda model=model, count=count: model.generate(
                prompt, steps=count, guidance_scale=GUIDANCE
            )
            for name, model, count in ((UNCACHED, before, steps), ("candidate", after, taken))
        }
        found = measure(runs, ROUNDS, reporter.update)
    theirs, ours = found[UNCACHED], found["candidate"]
    return {
        UNCACHED: theirs.summary()["median"],
        "candidate": ours.summary()["median"],
        "speed_up": theirs.ratio_to(ours),
        "speed_ups": [old / new for old, new in zip(theirs.rounds_s, ours.rounds_s, strict=True)],
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    lines = [
        (
            name,
            f"{facts['image_s']['candidate']:.3f}",
            f"{facts['image_s']['speed_up']:.2f}",
            f"{facts['cost']['weight_bytes'] / 1e6:.1f}",
            *(interval(facts[key], 1 if key == "psnr_db" else 3) for key in MEASURES),
        )
        for name, facts in rows.items()
    ]
    headings = ("row", "s an image", "times as fast", "MB", *MEASURES.values())
    show_table(f"emoji-sd, guidance {GUIDANCE}", headings, lines, width=170)


def pareto(rows: dict[str, dict[str, Any]]) -> bytes:
    """Speed across, a measure up; a row of plots for each number of steps."""
    counts = sorted({facts["steps"] for facts in rows.values()}, reverse=True)
    figure = Figure(figsize=(5 * len(MEASURES), 4.5 * len(counts)), dpi=110, layout="constrained")
    plots = figure.subplots(len(counts), len(MEASURES), squeeze=False)
    policies = list(dict.fromkeys(facts["policy"] for facts in rows.values()))
    # Its strong colours, then its pale ones.
    colours = {
        policy: colormaps["tab20"]((2 * index % 20 + index // 10) % 20)
        for index, policy in enumerate(policies)
    }
    for line, count in zip(plots, counts, strict=True):
        for axes, (key, title) in zip(line, MEASURES.items(), strict=True):
            for policy in policies:
                points = sorted(
                    (facts["image_s"]["speed_up"], facts[key]["value"])
                    for facts in rows.values()
                    if facts["policy"] == policy and facts["steps"] == count
                )
                # What a picture is off from itself would take most of the axis.
                if points and (key, policy) != ("psnr_db", UNCACHED):
                    thick, mark = 2.4 if "scheduled" in policy else 1.0, "o--" if policy == FEWER else "o-"
                    style: dict[str, Any] = {"color": colours[policy], "linewidth": thick, "markersize": 4}
                    axes.plot(*zip(*points, strict=True), mark, label=policy, **style)
            axes.set_title(f"{title}, {count} steps", loc="left")
            axes.set_xlabel("times as fast an image as uncached")
    figure.legend(*plots[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=9)
    return png(figure)


if __name__ == "__main__":
    typer.run(main)
