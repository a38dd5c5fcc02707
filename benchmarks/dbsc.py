"""What sparse attention scores (PSSA) and important pixels (TIPS) save on DBSC, and what they do to pictures.

    python benchmarks/dbsc.py [--prompts 64] [--keep]

Both passes run over emoji-sd, whose attention maps are those of a trained model, at several thresholds. Memory and
rows are counted on the calibration's calls, pictures are drawn on the referee and judged, and the estimate is that of
the changed program. ``--keep`` writes hwmodel/tables/measured.toml, which `fick validate-hardware` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from tables import show_table

from fick.compiler.frontends import open_model
from fick.compiler.pipeline import pipeline
from fick.compiler.progress import terminal
from fick.compiler.quality.evaluate import read_prompts
from fick.compiler.quality.judge import Judge
from fick.compiler.quality.studio import Studio
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import load
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, Pass, apply
from fick.passes.pssa import PruneScores, PruneScoresConfig
from fick.passes.tips import Tips, TipsConfig

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "emoji-sd"
MEASURED = ROOT / "hwmodel" / "tables" / "measured.toml"

STEPS, GUIDANCE, CALIBRATED = 20, 5.0, 8
SPARSE = (0.25, 0.5, 0.625, 1.0, 1.5)
SPOTTED = (0.8, 0.9, 1.0, 1.1)


def main(
    prompts: Annotated[int, typer.Option(help="Pictures that are judged.")] = 64,
    keep: Annotated[bool, typer.Option(help="Write the table that validate-hardware reads.")] = False,
) -> None:
    """Measure, print, and with --keep write."""
    imported = open_model(MODEL).main.imported()
    rates = {name: Rate(rate) for name, rate in imported.inputs.items()}
    program = Program(imported.name, {"full": imported.model}, rates, weights=imported.weights)
    asked = read_prompts(MODEL / "prompts.txt")
    settings: dict[str, Any] = {"steps": STEPS, "guidance_scale": GUIDANCE}
    with terminal() as reporter:
        reporter.stage("calibrate")
        calibrated = Studio(MODEL, asked[-CALIBRATED:], **settings, progress=reporter.update).context(program)
        reporter.stage("draw")
        judging = Studio(
            MODEL, asked[:prompts], **settings, judge=Judge(MODEL / "judge"), progress=reporter.update
        ).context(program)
        assert judging.quality is not None
        float_quality, before = judging.quality(program), priced(program)
        rows: dict[str, list[dict[str, float]]] = {Tips.name: [], PruneScores.name: []}
        passes: list[tuple[float, Pass[Any]]] = [
            *((one, PruneScores(PruneScoresConfig(threshold=one))) for one in SPARSE),
            *((one, Tips(TipsConfig(threshold=one))) for one in SPOTTED),
        ]
        for threshold, one in passes:
            reporter.stage(f"{one.name} {threshold}")
            changed = apply([one], program, calibrated)
            effect, quality = changed.history[-1].effect, judging.quality(changed)
            rows[one.name].append(
                {
                    "threshold": threshold,
                    **numbers(effect),
                    **shown(quality),
                    **saved(before, priced(changed)),
                }
            )
    print(f"float model: {described(shown(float_quality))}; {prompts} pictures of {STEPS} steps")
    for name, found in rows.items():
        headings = [key.replace("_", " ") for key in found[0]]
        show_table(
            name, headings, ([f"{value:.3g}" for value in row.values()] for row in found), words=0, width=150
        )
    if keep:
        MEASURED.write_text(as_toml(rows, prompts), encoding="utf-8")
        print(f"{MEASURED.relative_to(ROOT)} is written.")


def priced(program: Program) -> dict[str, Any]:
    """The estimate of a step of the program on DBSC."""
    return estimate(apply(pipeline(), program.copy(), Context()), load("dbsc"), steps=STEPS)


def saved(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Shares of a step's cycles, bytes off the chip and energy of the core that are saved."""

    def total(facts: Mapping[str, Any], key: str) -> float:
        return sum(facts[key].values())

    core = [one["step_energy_mj"]["compute"] + one["step_energy_mj"]["sram"] for one in (before, after)]
    return {
        "cycles_saved": 1 - after["step_cycles"] / before["step_cycles"],
        "ema_bytes_saved": 1 - total(after, "ema_bytes") / total(before, "ema_bytes"),
        "core_energy_saved": 1 - core[1] / core[0],
    }


def numbers(effect: Mapping[str, Any]) -> dict[str, float]:
    wanted = ("kept_share", "bits_per_score", "score_bytes_saved", "low_share", "output_error")
    return {key: float(effect[key]) for key in wanted if key in effect}


def shown(quality: Mapping[str, Any]) -> dict[str, float]:
    wanted = ("psnr_db", "ssim", "category_accuracy", "retrieval_accuracy", "frechet_distance")
    return {key: float(quality[key]["value"]) for key in wanted if key in quality}


def described(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in values.items())


def as_toml(rows: Mapping[str, list[dict[str, float]]], prompts: int) -> str:
    lines = [
        "# Written by benchmarks/dbsc.py: the passes at several thresholds over emoji-sd, "
        f"{prompts} pictures of {STEPS} steps.",
    ]
    for name, found in rows.items():
        for row in found:
            lines += ["", f"[[{name}]]", *(f"{key} = {value:.6g}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
