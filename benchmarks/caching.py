"""What reuse between steps does to emoji-sd's pictures, and what it saves: every row compiled, drawn, judged and timed.

    python benchmarks/caching.py [--prompts 256] [--steps 50 --steps 20] [--only NAME ...] [--json out/caching.json]

Each row is a recipe. Its bundle draws every prompt from the same seed as the float bundle without a cache, at guidance
5. Seconds are those of whole pictures, text encoder and decoder included, drawn in turns with that bundle. Calibration
draws prompts of concepts that the model has never seen. Bundles, drawings and finished rows are kept in --folder, and
pareto.png shows them: run it again to go on.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from precision import BEST, GUIDANCE, MODEL, interval, quantise
from rich.console import Console
from rich.table import Table

import fick
from fick.compiler.calibration import Calibration
from fick.compiler.programs import structure
from fick.compiler.progress import Silent, terminal
from fick.compiler.quality.evaluate import Prompt, evaluate, read_prompts
from fick.compiler.quality.gallery import fingerprint
from fick.compiler.quality.judge import Judge
from fick.compiler.recipes import NOTHING, Recipe
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
    TGate,
    TGateConfig,
)
from fick.passes.schedule import ScheduleReuse, ScheduleReuseConfig
from fick.passes.split_joins import SplitJoins
from fick.runtime import TextToImage

Row = tuple[str, tuple[Pass[Any], ...]]
"""The policy, whose rows one line of the plot joins, and the recipe."""


def scheduled(share: float) -> ScheduleReuse:
    return ScheduleReuse(ScheduleReuseConfig(budget=f"latency={share}x"))


def deep(interval: int, **settings: Any) -> DeepCache:
    return DeepCache(DeepCacheConfig(interval=interval, **settings))


def blocks(threshold: float) -> BlockCaching:
    return BlockCaching(BlockCachingConfig(threshold=threshold))


INTEGERS = (SplitJoins(), quantise(**BEST))

UNCACHED = "uncached"
ROWS: dict[str, Row] = {
    UNCACHED: ("uncached", ()),
    **{f"DeepCache N={n}": ("DeepCache", (deep(n),)) for n in (2, 3, 5, 10)},
    **{f"DeepCache N={n}, 3 deep": ("DeepCache, 3 deep", (deep(n, depth=3),)) for n in (2, 5)},
    **{f"DeepCache N={n}, centred": ("DeepCache, centred", (deep(n, spacing="centred"),)) for n in (3, 5)},
    "Faster Diffusion": ("Faster Diffusion", (FasterDiffusion(),)),
    **{f"T-GATE at {m}": ("T-GATE", (TGate(TGateConfig(gate=m)),)) for m in (0.2, 0.4)},
    **{f"FORA N={n}": ("FORA", (Fora(ForaConfig(interval=n)),)) for n in (2, 3, 5)},
    **{f"Block caching at {d}": ("Block caching", (blocks(d),)) for d in (0.15, 0.3, 0.6)},
    **{f"scheduled {s}x": ("scheduled", (scheduled(s),)) for s in (0.6, 0.5, 0.4, 0.3, 0.2)},
    "W8A8": ("W8A8", INTEGERS),
    **{f"W8A8, DeepCache N={n}": ("W8A8, DeepCache", (*INTEGERS, deep(n))) for n in (3, 5)},
    **{f"W8A8, scheduled {s}x": ("W8A8, scheduled", (*INTEGERS, scheduled(s))) for s in (0.5, 0.4, 0.3, 0.2)},
}

MEASURES = {
    "category_accuracy": "category accuracy",
    "retrieval_accuracy": "retrieval",
    "frechet_distance": "Fréchet distance",
    "psnr_db": "PSNR [dB]",
}
ROUNDS = 12
"""Pictures that are timed in turns."""


def main(
    prompts: Annotated[int, typer.Option(help="Pictures a row.")] = 256,
    steps: Annotated[list[int] | None, typer.Option(help="DDIM steps. [default: 50 and 20]")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Rows to make.")] = None,
    folder: Annotated[Path, typer.Option(help="Bundles, drawings and rows.")] = Path("out/caching"),
    json_file: Annotated[Path | None, typer.Option("--json", help="All figures, for machines.")] = None,
) -> None:
    """Make the rows that are not there yet, print all and plot them."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = read_prompts(MODEL / "prompts.txt")[:prompts]
    unknown = set(only or ()) - ROWS.keys()
    if unknown:
        raise typer.BadParameter(f"there is no row {unknown.pop()!r}; the rows are {', '.join(ROWS)}")
    found: dict[str, dict[str, Any]] = {}
    with terminal() as reporter:
        reference = bundle(UNCACHED, folder, reporter)
        for count in steps or (50, 20):
            for name in only or ROWS:
                path = bundle(name, folder, reporter)
                found[f"{name}, {count} steps"] = row(name, path, reference, asked, count, folder, reporter)
        reporter.finish()
    show(found)
    write_whole(folder / "pareto.png", pareto(found))
    if json_file is not None:
        write_whole(json_file, (json.dumps(found, indent=1) + "\n").encode())


def bundle(name: str, folder: Path, reporter: Silent) -> Path:
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.fick"
    passes = ROWS[name][1]
    looks = any(not isinstance(one, (DeepCache, FasterDiffusion, TGate, Fora)) for one in passes)
    calibration = Calibration(prompts=MODEL / "prompts-held-out.txt", guidance_scale=GUIDANCE)
    recipe = Recipe(passes=passes, calibration=calibration if looks else None) if passes else NOTHING
    reporter.stage(f"{name}: compile")
    fick.compile(MODEL, output=path, recipe=recipe, reporter=reporter)
    return path


def row(
    name: str, path: Path, reference: Path, asked: list[Prompt], steps: int, folder: Path, reporter: Silent
) -> dict[str, Any]:
    """One recipe in loops of so many steps; from the folder if it was made of the same bytes."""
    made_of = [fingerprint(path), fingerprint(reference), len(asked), steps]
    place = folder / "rows" / f"{path.stem}-{steps}.json"
    if place.is_file() and (kept := json.loads(place.read_bytes()))["made_of"] == made_of:
        return kept
    reporter.stage(f"{name}, {steps} steps: draw")
    facts = evaluate(
        path, reference, asked, steps=steps, seeds=1, guidance_scale=GUIDANCE, folder=folder / "drawings",
        judge=Judge(MODEL / "judge"), progress=reporter.update,
    )  # fmt: skip
    program = structure(path)
    if steps in program.schedule:
        write_whole(folder / f"{path.stem}-{steps}.png", draw(program, steps))
    with fick.load(path) as model:
        unet = model.manifest["components"]["unet"]
    result = {
        "made_of": made_of,
        "policy": ROWS[name][0],
        "steps": steps,
        "order": " ".join(program.schedule.get(steps, ["full"] * steps)),
        "history": unet["history"],
        "cost": facts["cost"]["candidate"],
        "psnr_db": facts["fidelity"]["psnr_db"],
        **{key: facts["judged"]["candidate"][key] for key in MEASURES if key != "psnr_db"},
        "image_s": in_turns(reference, path, asked, steps),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, (json.dumps(result, indent=1) + "\n").encode())
    return result


def in_turns(reference: Path, candidate: Path, asked: list[Prompt], steps: int) -> dict[str, Any]:
    """Seconds of pictures drawn with both, one after the other; the speed-up is the median of their ratios."""
    seconds: dict[Path, list[float]] = defaultdict(list)
    with fick.load(reference) as before, fick.load(candidate) as after:
        assert isinstance(before, TextToImage) and isinstance(after, TextToImage)
        for number in range(ROUNDS + 1):
            # The first round warms up; who goes first alternates.
            turns = [(reference, before), (candidate, after)]
            for path, model in turns[:: 1 if number % 2 else -1]:
                started = time.perf_counter()
                model.generate(
                    asked[number % len(asked)].text, seed=number, steps=steps, guidance_scale=GUIDANCE
                )
                if number:
                    seconds[path].append(time.perf_counter() - started)
    ratios = [old / new for old, new in zip(seconds[reference], seconds[candidate], strict=True)]
    return {
        "uncached": statistics.median(seconds[reference]),
        "candidate": statistics.median(seconds[candidate]),
        "speed_up": statistics.median(ratios),
        "speed_ups": ratios,
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"emoji-sd, guidance {GUIDANCE}", title_justify="left")
    table.add_column("row")
    for heading in ("s an image", "times as fast", "MB", *MEASURES.values()):
        table.add_column(heading, justify="right")
    for name, facts in rows.items():
        table.add_row(
            name,
            f"{facts['image_s']['candidate']:.3f}",
            f"{facts['image_s']['speed_up']:.2f}",
            f"{facts['cost']['weight_bytes'] / 1e6:.1f}",
            *(interval(facts[key], 1 if key == "psnr_db" else 3) for key in MEASURES),
        )
    Console(width=170).print(table)


def pareto(rows: dict[str, dict[str, Any]]) -> bytes:
    """Speed across, a measure up; a row of plots for each number of steps."""
    counts = sorted({facts["steps"] for facts in rows.values()}, reverse=True)
    figure = Figure(figsize=(5 * len(MEASURES), 4.5 * len(counts)), dpi=110, layout="constrained")
    plots = figure.subplots(len(counts), len(MEASURES), squeeze=False)
    policies = list(dict.fromkeys(facts["policy"] for facts in rows.values()))
    for line, count in zip(plots, counts, strict=True):
        for axes, (key, title) in zip(line, MEASURES.items(), strict=True):
            for policy in policies:
                points = sorted(
                    (facts["image_s"]["speed_up"], facts[key]["value"])
                    for facts in rows.values()
                    if facts["policy"] == policy and facts["steps"] == count
                )
                if points:
                    thick = 2.4 if "scheduled" in policy else 1.0
                    axes.plot(*zip(*points, strict=True), "o-", label=policy, linewidth=thick, markersize=4)
            axes.set_title(f"{title}, {count} steps", loc="left")
            axes.set_xlabel("times as fast an image as uncached")
    plots[0, 0].legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


if __name__ == "__main__":
    typer.run(main)
