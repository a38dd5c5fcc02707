"""fick tune: what runs fastest on this machine, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import (
    JsonOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    SamplerOption,
    ShapeOption,
    TargetOption,
    sampler_of,
    shapes,
)
from .output import show

EXAMPLE = (
    "Example: `fick tune models/emoji-sd -o here.tuned.json` then "
    "`fick compile models/emoji-sd --tuned here.tuned.json`"
)


def command(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where measurements go, beside those it has."),
    ],
    target: TargetOption = "host",
    shape: ShapeOption = None,
    recipe: RecipeOption = None,
    sampler: SamplerOption = None,
    precision: PrecisionOption = "float32",
    choices: Annotated[
        int, typer.Option(min=2, max=100, help="Of every problem, the predicted one among them.")
    ] = 6,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each, in turns.")] = 7,
    json_file: JsonOption = None,
) -> None:
    """Compile MODEL in several ways, time every layer in each, and keep what beats the prediction.

    Nothing else should run meanwhile. Interrupted, it goes on where it was; other models add to the same file.
    """
    from ..progress import terminal
    from ..tuning.tune import tune

    with terminal() as reporter:
        found = tune(
            model,
            output,
            target=target,
            choices=choices,
            rounds=rounds,
            shapes=shapes(shape),
            recipe=recipe,
            sampler=sampler_of(sampler),
            precision=precision,
            reporter=reporter,
        )
    show(
        str(output),
        {
            "problems": f"{found['problems']}, {found['changed']} of them faster otherwise than predicted",
            "a step": f"{found['ratio']:.3f}x of the predicted choices' time",
        },
        json_file,
        found,
    )
