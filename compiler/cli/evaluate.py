"""fick evaluate: what a change did to the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ...ir.errors import UserError
from .arguments import JsonInsideOption, place_or_inside
from .output import megabytes, milliseconds, show

EXAMPLE = (
    "Example: `fick evaluate int8.fick --reference models/emoji-sd --prompts prompts.txt --steps 20 --json -`"
)


def command(
    candidate: Annotated[Path, typer.Argument(metavar="BUNDLE|PIPELINE", help="What is judged.")],
    reference: Annotated[
        Path, typer.Option(metavar="PIPELINE|BUNDLE", help="The float model: a diffusers folder or a bundle.")
    ],
    prompts: Annotated[
        Path, typer.Option(metavar="FILE", help="One prompt a line; after a tab, its category.")
    ],
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps a picture.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Pictures a prompt.")] = 1,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 5.0,
    judge: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The networks that judge. [default: judge/ in the reference]"),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your inception-2015-12-05.pt: adds FID against --real."),
    ] = None,
    real: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Real pictures, for FID.")] = None,
    clip: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Your CLIP in transformers' layout: adds CLIP score."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Drawings, to resume from, and sheet.png."),
    ] = Path("out/evaluate"),
    json_file: JsonInsideOption = None,
) -> None:
    """Measure what a change did to a model's pictures, and what it costs."""
    from ..progress import terminal
    from ..quality.evaluate import evaluate as measure
    from ..quality.evaluate import read_prompts
    from ..quality.judge import Judge
    from ..quality.standard import Standard

    for source in (candidate, reference):
        if not source.exists():
            raise UserError(f"{source}: no such bundle or pipeline folder")
    place_or_inside(output, json_file)
    asked = read_prompts(prompts)
    standard = Standard(inception, real, clip) if inception or real or clip else None
    place = judge or reference / "judge"
    with terminal() as reporter:
        reporter.stage("draw")
        facts = measure(
            candidate,
            reference,
            asked,
            steps=steps,
            seeds=seeds,
            guidance_scale=guidance,
            folder=output,
            judge=Judge(place) if judge or place.is_dir() else None,
            standard=standard,
            progress=reporter.update,
        )
        reporter.finish()
    show(f"{candidate} against {reference}", _evaluation_rows(facts), json_file, facts)


def _evaluation_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    def interval(one: Mapping[str, float]) -> str:
        return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"

    near = facts["fidelity"]
    rows = {
        "PSNR": f"{interval(near['psnr_db'])} dB",
        "SSIM": interval(near["ssim"]),
        "latent error": interval(near["latent_error"]),
    }
    for side, found in facts.get("judged", {}).items():
        rows[f"{side}: Fréchet distance"] = interval(found["frechet_distance"])
        rows[f"{side}: precision, recall"] = f"{found['precision']:.3f}, {found['recall']:.3f}"
        for kind in ("category", "retrieval"):
            if f"{kind}_accuracy" in found:
                rows[f"{side}: {kind} accuracy"] = interval(found[f"{kind}_accuracy"])
    for side, found in facts.get("standard", {}).items():
        for key, name in (("fid", "FID"), ("clip_score", "CLIP score")):
            if key in found:
                rows[f"{side}: {name}"] = f"{found[key]:.2f}"
    for side, cost in facts["cost"].items():
        rows[f"{side}: a picture"] = (
            f"{cost['image_s']['median']:.2f} s, {milliseconds(cost['step_s'])} a step"
        )
        rows[f"{side}: memory"] = f"weights {megabytes(cost['weight_bytes'])}" + (
            f", peak {megabytes(cost['peak_bytes'])}" if "peak_bytes" in cost else ""
        )
    return rows
