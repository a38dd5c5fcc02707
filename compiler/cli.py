"""The command line: ``fick VERB``. Each verb is a thin reading of its arguments; the work is elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from ..ir.errors import UserError
from ..runtime import png
from ..runtime.errors import FickError

app = typer.Typer(
    name="fick",
    help="Compile diffusion UNets for the edge, run them, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
out = Console()

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An .onnx file, a diffusers folder, a diffusers config.json, or a known name such as sd-1.5 "
        "(the last two: random weights).",
    ),
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .fick file.")]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the result for machines; - is standard output."),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,4,64,64", help="Fix the size of an input. May be repeated."),
]
TargetOption = Annotated[
    str, typer.Option("--target", "-t", help="A device profile (see `fick targets`) or a .toml file.")
]


class SamplerName(StrEnum):
    """Samplers that `fick run` takes by name."""

    consistency = "consistency"
    ddim = "ddim"
    ddpm = "ddpm"
    dpm_solver = "dpm-solver++"
    euler = "euler"
    plms = "plms"


class Interrupted(BaseException):
    """Ctrl-C, as an exception of our own: typer would answer Python's with a word and another exit code."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def main() -> None:
    """The entry point: a user's mistake becomes one sentence on standard error and exit code 2."""
    signal.signal(signal.SIGINT, _interrupt)
    warnings.showwarning = lambda message, *rest: print(f"fick: {message}", file=sys.stderr)
    # Typer would print a frame of several lines around a mistake in the arguments.
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (UserError, FickError) as error:
        _stop(str(error))
    except TyperException as error:
        _stop(error.format_message() or "name what to do; see fick --help")
    except Interrupted:
        _stop("interrupted; run the same command again and finished work is not repeated")
    except MemoryError:
        _stop("there is not enough memory; close other programs or take a smaller model")


def _stop(message: str) -> None:
    print(f"fick: {message}", file=sys.stderr)
    sys.exit(2)


@app.command(
    epilog="Example: `fick compile sd-1.5 --target host -o sd.fick` then `fick bench sd.fick`",
)
def compile(
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
    sampler: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='The bundle\'s own sampler, e.g. \'{"kind": "euler"}\'.'),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Compile MODEL for a device into one self-contained bundle."""
    from .compile import compile as compile_model
    from .progress import terminal

    with terminal() as reporter:
        report = compile_model(
            model,
            target,
            output,
            shapes=_shapes(shape),
            seed=seed,
            sampler=_sampler(sampler),
            memory_limit_bytes=_bytes(memory_limit) if memory_limit else None,
            reporter=reporter,
        )
    facts = {
        "bundle": str(report.bundle),
        "random_weights": report.random_weights,
        "nodes": report.nodes,
        "kernels": report.kernels,
        "calls": report.calls,
        "weight_bytes": report.weight_bytes,
        "arena_bytes": report.arena_bytes,
        "state_bytes": report.state_bytes,
        "peak_bytes": report.peak_bytes,
        "seconds": report.seconds,
    }
    _show(
        f"{report.bundle}",
        {
            "weights": _size(report.weight_bytes) + (" (random)" if report.random_weights else ""),
            "peak memory": _size(report.peak_bytes),
            "graph": f"{report.nodes} nodes",
            "kernels": f"{report.kernels} in {sum(sum(one.values()) for one in report.calls.values())} calls",
            "time": f"{sum(report.seconds.values()):.1f} s",
        },
        json_file,
        facts,
    )


@app.command(
    epilog="Example: `fick run emoji.fick --prompt 'cat with heart eyes' --steps 20 --seed 7 -o cat.png` or "
    "`fick run terrain.fick --prompt-input difficulty=0.7 --seed 3 -o terrain.png`"
)
def run(
    bundle: BundleArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.png", help="The picture, or an .npy.")
    ],
    prompt: Annotated[str | None, typer.Option(help="What to draw, for a text-to-image bundle.")] = None,
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    guidance: Annotated[float, typer.Option(help="How closely to follow the prompt.")] = 5.0,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to start from instead of noise.")
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much of --init may change, 0 to 1.")
    ] = 0.8,
    steps: Annotated[int | None, typer.Option(min=1, help="Calls of the model.")] = None,
    sampler: Annotated[SamplerName | None, typer.Option(help="[default: the bundle's own]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same picture.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures, side by side; seeds count up.")] = 1,
    prompt_input: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-input", metavar="NAME=VALUE", help="A number, or an .npy file, for a prompt input."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all.")] = 0,
    memory_limit: Annotated[str | None, typer.Option(metavar="600MB")] = None,
    json_file: JsonOption = None,
) -> None:
    """Sample from BUNDLE and write the result as a picture."""
    import time

    from ..runtime import TextToImage, load
    from . import pictures
    from .progress import terminal

    if not output.parent.is_dir():
        raise UserError(f"cannot write {output}: {output.parent} is not a folder")
    limit = _bytes(memory_limit) if memory_limit else 0
    with load(bundle, threads=threads, memory_limit_bytes=limit) as model:
        if isinstance(model, TextToImage):
            if prompt is None or prompt_input:
                raise UserError(
                    f"{bundle} draws from a text; give it with --prompt, and nothing else as input"
                )
            asked: dict[str, Any] = {
                "prompt": prompt,
                "negative_prompt": negative,
                "guidance_scale": guidance,
            }
            if init is not None:
                asked |= {"init": pictures.read(init, model.picture_size), "strength": strength}
        elif prompt is not None or init is not None:
            raise UserError(f"{bundle} reads no text and no picture; leave --prompt and --init out")
        else:
            asked = _prompt(prompt_input or [], model)
        chosen = {"kind": sampler.value} if sampler else None
        if chosen and isinstance(model, TextToImage):
            # Another sampler of the noise that the model was trained on.
            chosen = {**model.manifest["sampler"].get("config", {}), **chosen}
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
        np.save(output, np.stack(samples) if samples[0].ndim == 3 else np.concatenate(samples))
    else:
        images = [one for sample in samples for one in pictures.images(sample)]
        png.save(pictures.grid(images, min(4, len(images))), output)
    facts = {"output": str(output), "shape": shape, "count": count, "seed": seed, "seconds": seconds}
    _show(str(output), {"samples": f"{count} of {shape}", "time": f"{seconds:.2f} s"}, json_file, facts)


@app.command(epilog="Example: `fick bench terrain.fick --model terrain.onnx --against onnxruntime --json -`")
def bench(
    bundle: BundleArgument,
    model: Annotated[str | None, typer.Option(help="The bundle's source, for the peers to run.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="PEER,...", help="Peers: onnxruntime, openvino.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10000, help="Interleaved rounds.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Time one call of BUNDLE, in turn with peers running the same model."""
    from .bench import bench as measure
    from .progress import terminal

    with terminal() as reporter:
        reporter.stage("measure")
        peers = [name for name in (against or "").split(",") if name]
        result = measure(
            bundle, model=model, peers=peers, rounds=rounds, threads=threads, progress=reporter.update
        )
        reporter.finish()
    if json_file and str(json_file) == "-":
        return _write_json(json_file, result)
    table = Table("system", "a call (median)", "spread", "fick / it", "largest difference", box=None)
    ours = result["step_s"]
    table.add_row("fick", _ms(ours["median"]), f"{_ms(ours['min'])} .. {_ms(ours['max'])}", "", "")
    for name, peer in result["peers"].items():
        step = peer["step_s"]
        spread = f"{_ms(step['min'])} .. {_ms(step['max'])}"
        table.add_row(
            name, _ms(step["median"]), spread, f"{peer['ratio']:.2f}", f"{peer['max_abs_diff']:.1e}"
        )
    out.print(table)
    random = " (random)" if result["random_weights"] else ""
    out.print(f"weights {_size(result['weight_bytes'])}{random}, peak memory {_size(result['peak_bytes'])}")
    if json_file:
        _write_json(json_file, result)


@app.command(epilog="Example: `fick inspect sd-1.5` or `fick inspect terrain.fick`")
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL|BUNDLE")],
    shape: ShapeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Say what is in a model or a bundle: inputs, operators, blocks, memory."""
    from .inspection import inspect_bundle, inspect_model
    from .progress import terminal

    if model.endswith(".fick"):
        facts = inspect_bundle(Path(model))
    else:
        with terminal() as reporter:
            reporter.stage("import")
            facts = inspect_model(model, _shapes(shape))
            reporter.finish()
    _show(model, {key: _line(value) for key, value in facts.items()}, json_file, facts)


@app.command(epilog="Example: `fick targets`")
def targets(json_file: JsonOption = None) -> None:
    """List the device profiles."""
    from ..targets import profile

    facts = {name: profile.load(name).model_dump(mode="json") for name in profile.names()}
    rows = {name: f"{one['description']}; needs {', '.join(one['requires'])}" for name, one in facts.items()}
    _show("targets", rows, json_file, facts)


@app.command(epilog="Example: `fick repack sd.fick --weights finetune.safetensors -o finetune.fick`")
def repack(
    bundle: BundleArgument,
    weights: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="All weights, by source name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The new bundle.")],
    component: Annotated[
        str | None, typer.Option(help="Whose weights they are. [default: the main one, the UNet]")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Put new weights of the same shapes into BUNDLE without compiling."""
    from .progress import terminal
    from .repack import repack as swap

    with terminal() as reporter:
        reporter.stage("repack")
        written = swap(bundle, weights, output, reporter.update, component=component)
        reporter.finish()
    size = written.stat().st_size
    _show(str(written), {"size": _size(size)}, json_file, {"bundle": str(written), "bytes": size})


def _shapes(given: list[str] | None) -> dict[str, list[int]] | None:
    shapes: dict[str, list[int]] = {}
    for text in given or []:
        match = re.fullmatch(r"([^=]+)=(\d+(?:,\d+)*)", text)
        if not match:
            raise UserError(f"--shape {text!r} is not of the form NAME=1,4,64,64")
        shapes[match[1]] = [int(part) for part in match[2].split(",")]
    return shapes or None


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"--memory-limit {text!r} is not a size such as 600MB or 2GB")
    return int(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2].upper()])


def _sampler(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    from ..runtime import samplers

    try:
        spec = json.loads(text)
    except ValueError:
        spec = {"kind": text}
    if not isinstance(spec, dict):
        raise UserError(f"--sampler {text!r} is neither a sampler's name nor a JSON object with its kind")
    samplers.create(spec)
    return spec


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
            values[name] = np.load(value, allow_pickle=False) if value.endswith(".npy") else float(value)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--prompt-input {text!r}: neither a number nor a readable .npy file ({error})"
            ) from None
    missing = [name for name in wanted if name not in values]
    if missing:
        raise UserError(f"prompt input {missing[0]} is missing; give it with --prompt-input {missing[0]}=...")
    return values


def _show(title: str, rows: Mapping[str, str], json_file: Path | None, facts: Any) -> None:
    if json_file is None or str(json_file) != "-":
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for name, text in rows.items():
            table.add_row(name, text)
        out.print(table)
    if json_file is not None:
        _write_json(json_file, facts)


def _write_json(path: Path, facts: Any) -> None:
    text = json.dumps(facts, indent=1) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def _line(value: Any) -> str:
    pick: Callable[[Any], str] = str
    if isinstance(value, dict):
        return ", ".join(f"{name} {pick(one)}" for name, one in value.items())
    return ", ".join(pick(one) for one in value) if isinstance(value, list) else pick(value)


if __name__ == "__main__":
    main()
