"""fick compile: a model into a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ...passes.budget import written
from .arguments import (
    JsonOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    SamplerOption,
    ShapeOption,
    TargetOption,
    duration_of,
    sampler_of,
    shapes,
    size_of,
)
from .output import megabytes, show

EXAMPLE = (
    "Example: `fick compile sd-1.5 --target host -o sd.fick` then `fick bench sd.fick`, or, for half the time a step, "
    "`fick compile models/emoji-sd --budget latency=0.5x --calibrate prompts.txt`, or, for a quarter of it by pruning "
    "and reuse as well, the same with `--budget latency=0.25x --within 2h`"
)

NAMED = 4
"""Layers in a sentence."""


def command(
    model: ModelArgument,
    target: TargetOption = "host",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The bundle. [default: NAME.fick]")
    ] = None,
    shape: ShapeOption = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="600MB", help="Refuse to compile what needs more. [default: the target's memory]"
        ),
    ] = None,
    sampler: SamplerOption = None,
    recipe: RecipeOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="latency=0.5x",
            help="What the UNet may cost, predicted for the target: latency=, bytes=, or both with a comma, as a share "
            "of what it costs in float32 (0.5x) or with a unit (250MB). Layers get the formats that lose least.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts, one a line, on which a --budget's losses are measured and corrected.",
        ),
    ] = None,
    distil: Annotated[
        bool,
        typer.Option(
            "--distil",
            "--distill",
            help="With a --budget: learn back what it loses from the float model's own outputs, in some minutes.",
        ),
    ] = False,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="30min",
            help="With a --budget: formats share it with blocks that go and steps that reuse, and for so long recipes "
            "are tried. The best is written beside the bundle as NAME.toml, all as NAME.png, over nothing of yours. "
            "The same again goes on.",
        ),
    ] = None,
    write_back: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write what the recipe's pruning leaves of the UNet, as a diffusers folder of floats.",
        ),
    ] = None,
    precision: PrecisionOption = "float32",
    tuned: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `fick tune` measured on the target.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="For a GPU: the processor to run on where there is no such GPU. Stores the weights twice.",
        ),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Store what every kernel should give, for `fick-run --self-test`."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Compile MODEL for a device into one self-contained bundle."""
    from ..compile import compile as compile_model
    from ..progress import terminal

    with terminal() as reporter:
        report = compile_model(
            model,
            target,
            output,
            shapes=shapes(shape),
            seed=seed,
            sampler=sampler_of(sampler),
            memory_limit_bytes=None if memory_limit is None else size_of(memory_limit),
            recipe=recipe,
            budget=budget,
            calibrate=calibrate,
            distil=distil,
            within_s=None if within is None else duration_of(within),
            write_back=write_back,
            precision=precision,
            tuned=tuned,
            fallback=fallback,
            self_test=self_test,
            reporter=reporter,
        )
    show(
        f"{report.bundle}",
        {
            "weights": megabytes(report.weight_bytes) + (" (random)" if report.random_weights else ""),
            "peak memory": megabytes(report.peak_bytes),
            "graph": f"{report.nodes} nodes",
            "kernels": f"{report.kernels} in {sum(sum(one.values()) for one in report.calls.values())} calls",
            **({"layers": _wide(precision, report.wide)} if report.wide else {}),
            **({"written back": f"{write_back}"} if write_back else {}),
            **(_searched(report.bundle) if within else _assigned(report.history)),
            "time": f"{sum(report.seconds.values()):.1f} s",
        },
        json_file,
        {**asdict(report), "bundle": str(report.bundle)},
    )


def _wide(precision: str, layers: Mapping[str, list[str]]) -> str:
    """One sentence."""
    named = [f"{component} {layer}" for component, found in layers.items() for layer in found]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return (
        f"the range of {precision} is too short for {', '.join(named[:NAMED])}{more}, which stay in float32."
    )


def _searched(bundle: Path) -> dict[str, str]:
    """Where the recipe lies that was found, and what it says of itself."""
    recipe = bundle.with_suffix(".toml")
    with recipe.open(encoding="utf-8") as lines:
        return {"recipe": f"{recipe}", "found": next(lines).removeprefix("# ").strip()}


def _assigned(history: list[dict[str, Any]]) -> dict[str, str]:
    """What the optimiser chose, and what that costs and loses."""
    effects = {one["pass"]: one["effect"] for one in history}
    if "assign" not in effects:
        return {}
    effect = effects["assign"]
    last = {
        **effect,
        **effects.get("correct-bias", {}),
        **effects.get("distil", {}),
        **effects.get("correct-noise", {}),
    }
    costs = (
        f"{name} {written(one['after'], name)} ({one['after'] / one['before']:.2f}x)"
        for name, one in effect["cost"].items()
    )
    return {
        "formats": ", ".join(f"{count} x {name}" for name, count in effect["products"].items() if count),
        "predicted cost": ", ".join(costs),
        "output error": f"{100 * last['output_error']:.2f} % of the output",
    }
