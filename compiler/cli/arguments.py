"""Arguments that several verbs share, and how their text is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ...ir.errors import UserError
from ...ir.files import check_folder, check_place

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An .onnx file, a diffusers folder, a diffusers config.json, or a known name such as sd-1.5 "
        "(the last two: random weights).",
    ),
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .fick file.")]


def place(path: Path | None) -> Path | None:
    """A callback of options that name a file to write."""
    if path is not None:
        if str(path) == "-":
            raise UserError("standard output takes JSON alone; give the path of a file")
        check_place(path)
    return path


def json_place(path: Path | None) -> Path | None:
    """As ``place``, of JSON; - is standard output."""
    return path if str(path) == "-" else place(path)


def place_or_inside(folder: Path | None, json_file: Path | None) -> None:
    """As ``place``, of the ``folder`` that a verb makes, and for ``JsonInsideOption``: a file right in that has one."""
    if folder is not None:
        check_folder(folder)
    if json_file is None or folder is None or json_file.parent != folder:
        json_place(json_file)


JSON_HELP = "Write the result for machines; - is standard output."
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help=JSON_HELP, callback=json_place)
]
JsonInsideOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,4,64,64", help="Fix the size of an input. May be repeated."),
]
TargetOption = Annotated[
    str, typer.Option("--target", "-t", help="A device profile (see `fick targets`) or a .toml file.")
]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE.toml", help="Optional passes, in order, and their parameters."),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='How the model is sampled, e.g. \'{"kind": "euler"}\', which a bundle keeps; a recipe without prompts is '
        "calibrated in such loops. [default: the folder's scheduler]",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="FORMAT",
        help="Of weights and of values in memory: float32, bfloat16 or, on GPUs and Arm, float16.",
    ),
]
StepsOption = Annotated[int, typer.Option(min=1, max=1000, help="Calls of the model for an image.")]
DramOption = Annotated[
    str | None,
    typer.Option(metavar="TABLE", help="Energy of external accesses. [default: the spec's]"),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="0 takes all.")]


def shapes(given: list[str] | None) -> dict[str, list[int]] | None:
    found: dict[str, list[int]] = {}
    for text in given or []:
        match = re.fullmatch(r"([^=]+)=(\d+(?:,\d+)*)", text)
        if not match:
            raise UserError(f"--shape {text!r} is not of the form NAME=1,4,64,64")
        found[match[1]] = [int(part) for part in match[2].split(",")]
    return found or None


def sampler_of(text: str | None) -> dict[str, Any] | None:
    """What ``samplers.create`` takes."""
    if text is None:
        return None
    from ...runtime import samplers

    try:
        spec = json.loads(text)
    except (ValueError, RecursionError):
        spec = {"kind": text}
    if not isinstance(spec, dict):
        raise UserError(f"--sampler {text!r} is neither a sampler's name nor a JSON object with its kind")
    samplers.create(spec)
    return spec


def size_of(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMG]?)(i?)B?", text.strip(), re.IGNORECASE)
    base = 1024 if match and match[3] else 1000
    size = int(float(match[1]) * base ** " KMG".index(match[2].upper() or " ")) if match else 0
    if not size:
        raise UserError(f"--memory-limit {text!r} is not a size such as 600MB or 2GB")
    return size


def duration_of(text: str) -> float:
    """Seconds."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h)", text.strip())
    if not match or not float(match[1]):
        raise UserError(f"--within {text!r} is not a time such as 90s, 30min or 2h")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
