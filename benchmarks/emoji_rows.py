"""What tables of recipes have in common: a row is one, whose bundle is timed and, of emoji-sd, draws and is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from numpy.typing import NDArray

import fick
from fick.compiler.bench.compare import example_inputs
from fick.compiler.bench.rounds import measure
from fick.compiler.calibration import Calibration
from fick.compiler.compile import Report
from fick.compiler.progress import Silent
from fick.compiler.quality.evaluate import Prompt, evaluate, read_prompts
from fick.compiler.quality.gallery import fingerprint
from fick.compiler.quality.judge import Judge
from fick.compiler.recipes import NOTHING, Recipe
from fick.ir.files import write_whole
from fick.passes.base import Pass
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime import Model

MODEL = Path(__file__).resolve().parents[1] / "models" / "emoji-sd"
GUIDANCE = 5.0
ROUNDS, CALLS = 21, 8
"""In which calls are timed, and how many follow on one another in each, as those of a loop do."""

Passes = tuple[Pass[Any], ...]

Prompts = Annotated[int, typer.Option(help="Pictures a row.")]
Only = Annotated[list[str] | None, typer.Option(help="Rows to make.")]
Folder = Annotated[Path, typer.Option(help="Bundles, drawings and rows.")]

BEST = {"estimator": "mse", "clip_weights": True}
"""Ranges that lose least."""


def quantise(**settings: Any) -> Quantise:
    return Quantise(QuantiseConfig(**settings))


def check(only: Sequence[str] | None, rows: Collection[str]) -> None:
    """Raises BadParameter for a row that there is not."""
    if unknown := sorted({*(only or ())} - {*rows}):
        raise typer.BadParameter(f"there is no row {unknown[0]!r}; the rows are {', '.join(rows)}")


def asked(count: int, only: Sequence[str] | None, rows: Collection[str]) -> list[Prompt]:
    """The first prompts. Raises as ``check``."""
    check(only, rows)
    return read_prompts(MODEL / "prompts.txt")[:count]


def recipe_of(passes: Passes, calibration: Calibration | None) -> Recipe:
    return Recipe(passes=passes, calibration=calibration) if passes else NOTHING


def place_of(name: str, folder: Path) -> Path:
    """Of a row's bundle."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}.fick"


def bundle(
    name: str,
    passes: Passes,
    folder: Path,
    reporter: Silent,
    *,
    pictures: int = 8,
    calls: int = 256,
    steps: int = 20,
    looks: bool = True,
) -> tuple[Path, Report]:
    """A row's, compiled; what looks at pictures does so at those of concepts that the model has never seen."""
    reporter.stage(f"{name}: compile")
    prompts = MODEL / "prompts-held-out.txt"
    calibration = (
        Calibration(prompts=prompts, pictures=pictures, calls=calls, steps=steps, guidance_scale=GUIDANCE)
        if looks
        else None
    )
    path = place_of(name, folder)
    return path, fick.compile(MODEL, output=path, recipe=recipe_of(passes, calibration), reporter=reporter)


def drawn(
    name: str,
    path: Path,
    reference: Path,
    prompts: list[Prompt],
    folder: Path,
    reporter: Silent,
    *,
    steps: int,
    reference_steps: int | None = None,
) -> dict[str, Any]:
    """What ``evaluate`` says of a bundle's pictures beside the reference's."""
    reporter.stage(f"{name}: draw")
    return evaluate(
        path, reference, prompts, steps=steps, seeds=1, guidance_scale=GUIDANCE, folder=folder / "drawings",
        judge=Judge(MODEL / "judge"), progress=reporter.update, reference_steps=reference_steps,
    )  # fmt: skip


def paced(ours: Model, theirs: Model, reporter: Silent) -> tuple[float, float]:
    """Seconds of a call, and what share that is of the other model's in the same rounds."""
    feeds = example_inputs(theirs, 0)

    def calls(model: Model) -> NDArray[Any]:
        return [next(iter(model.run(**feeds).values())) for _ in range(CALLS)][-1]

    runs = {"theirs": partial(calls, theirs), "ours": partial(calls, ours)}
    found = measure(runs, ROUNDS, reporter.update)
    return found["ours"].summary()["median"] / CALLS, found["ours"].ratio_to(found["theirs"])


def made_of(path: Path, reference: Path, prompts: Sequence[Prompt], *settings: int) -> list[Any]:
    """All that a row's figures follow from: the two bundles, what is drawn and what judges it."""
    asked = hashlib.sha256(repr(prompts).encode()).hexdigest()
    return [*(fingerprint(one) for one in (path, reference, MODEL / "judge")), asked, *settings]


def kept(place: Path, told: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row, from its file if that was made of what is ``told``."""
    if place.is_file() and (found := json.loads(place.read_bytes()))["made_of"] == told:
        return found
    result = {"made_of": told, **make()}
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, (json.dumps(result, indent=1) + "\n").encode())
    return result


def interval(figure: dict[str, float], digits: int) -> str:
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low}..{high})"
