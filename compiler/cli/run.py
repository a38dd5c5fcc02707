"""fick run: pictures from a bundle."""

import io
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ...ir.errors import UserError, first_line
from ...runtime import ClassToImage, Model, TextToImage, load, png, samplers
from .arguments import BundleArgument, JsonOption, ThreadsOption, place, size_of
from .output import show, write_result

EXAMPLE = (
    "Example: `fick run emoji.fick --prompt 'cat with heart eyes' --steps 20 --seed 7 -o cat.png`, "
    "`fick run dit.fick --class-label 'golden retriever' -o dog.png` or "
    "`fick run terrain.fick --prompt-input difficulty=0.7 --seed 3 -o terrain.png`"
)


def command(
    bundle: BundleArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.png", help="The picture, or an .npy.", callback=place),
    ],
    prompt: Annotated[str | None, typer.Option(help="What to draw, for a text-to-image bundle.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    class_label: Annotated[
        str | None, typer.Option(metavar="NUMBER|NAME", help="What to draw, for a class-to-image bundle.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How closely to follow the prompt, for a bundle that reads prompts. [default: 5]"),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to start from instead of noise.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="How much of --init may change, 0 to 1. [default: 0.8]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Calls of the model.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help=f"{', '.join(samplers.KINDS)}. [default: the bundle's own]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same picture.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures, side by side; seeds count up.")] = 1,
    prompt_input: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-input", metavar="NAME=VALUE", help="A number, or an .npy file, for a prompt input."
        ),
    ] = None,
    threads: ThreadsOption = 0,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="600MB", help="Weights that do not fit are read again at every step."),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Sample from BUNDLE and write the result as a picture."""
    from .. import pictures
    from ..progress import terminal

    if output.suffix not in (".png", ".npy"):
        raise UserError(f"cannot write {output}: give a name that ends in .png or .npy")
    if strength is not None and init is None:
        raise UserError("--strength says how much of a picture may change; give the picture with --init")
    limit = 0 if memory_limit is None else size_of(memory_limit)
    with load(bundle, threads=threads, memory_limit_bytes=limit) as model:
        asked = _asked(
            bundle,
            model,
            {
                "--prompt": prompt,
                "--negative": negative,
                "--class-label": class_label,
                "--guidance": guidance,
                "--init": init,
                "--strength": strength,
                "--prompt-input": prompt_input,
            },
        )
        if init is not None and not isinstance(model, Model):
            asked["init"] = pictures.read(init, model.picture_size)
        chosen = {**_noise_of(model.manifest), "kind": sampler} if sampler else None
        samples: list[Any] = []
        started = time.perf_counter()
        with terminal() as reporter:
            reporter.stage("sample")
            for index in range(count):

                def progress(done: int, total: int, index: int = index) -> None:
                    reporter.update(index * total + done, count * total)

                samples.append(
                    model.generate(steps=steps, sampler=chosen, seed=seed + index, progress=progress, **asked)
                )
            reporter.finish()
        seconds = time.perf_counter() - started
        shape = list(samples[0].shape)
    if output.suffix == ".npy":
        data = io.BytesIO()
        np.save(data, np.stack(samples) if samples[0].ndim == 3 else np.concatenate(samples))
        write_result(output, data.getvalue())
    else:
        images = [one for sample in samples for one in pictures.images(sample)]
        png.save(pictures.grid(images, min(4, len(images))), output)
    facts = {"output": str(output), "shape": shape, "count": count, "seed": seed, "seconds": seconds}
    show(str(output), {"samples": f"{count} of {shape}", "time": f"{seconds:.2f} s"}, json_file, facts)


def _noise_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The noise schedule that the model was trained on: another sampler of it has to know it."""
    own = manifest.get("sampler") or {}
    return dict(own.get("config", own))


DRAWING = {"--init": "init", "--strength": "strength", "--guidance": "guidance_scale"}

TAKES: dict[type, dict[str, str]] = {
    TextToImage: {"--prompt": "prompt", "--negative": "negative_prompt", **DRAWING},
    ClassToImage: {"--class-label": "label", **DRAWING},
    Model: {"--prompt-input": ""},
}
"""What tells a bundle what to draw, as options and as arguments of ``generate``; no pipeline does without the first."""


def _asked(bundle: Path, model: Any, given: dict[str, Any]) -> dict[str, Any]:
    takes = TAKES[type(model)]
    said = {option: value for option, value in given.items() if value is not None}
    foreign = next((option for option in said if option not in takes), None)
    if foreign is not None:
        raise UserError(f"{bundle} takes no {foreign}; give what it is to draw with {', '.join(takes)}")
    if isinstance(model, Model):
        return _prompt(said.get("--prompt-input", []), model)
    needed = next(iter(takes))
    if needed not in said:
        raise UserError(f"{bundle} needs to know what to draw; give it with {needed}")
    return {takes[option]: value for option, value in said.items()}


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _prompt(given: list[str], model: Any) -> dict[str, Any]:
    wanted = [name for name, info in model.inputs.items() if info.rate == "prompt"]
    values: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--prompt-input {text!r} is not of the form NAME=VALUE")
        if name not in wanted:
            raise UserError(f"there is no prompt input {name}; this model has {', '.join(wanted) or 'none'}")
        try:
            values[name] = np.load(value, allow_pickle=False) if value.endswith(".npy") else _number(value)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"--prompt-input {text!r}: neither a number nor a readable .npy file ({first_line(error)})"
            ) from None
    missing = [name for name in wanted if name not in values]
    if missing:
        raise UserError(f"prompt input {missing[0]} is missing; give it with --prompt-input {missing[0]}=...")
    return values
