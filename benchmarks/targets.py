"""What models become on boards, phones and GPUs: code, weights, memory, kernels and the time that the profiles predict.

    python benchmarks/targets.py sd-1.5 bk-sdm-tiny [--target rpi5 --target mali] [--precision float32] [--json FILE]

Of one call of the UNet. Nothing runs on a target: the times are rooflines (compiler/costs), from figures of which each
profile says whether they were published or assumed. What was killed goes on with the kernel that it was at, and rows
that this code has had before are printed again at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from json_file import JsonFile, write_json

from fick.compiler.bundle.link import kernels_source, link
from fick.compiler.cache import cache_folder, digest
from fick.compiler.costs import gpu, predicted
from fick.compiler.frontends import Source, open_model
from fick.compiler.pipeline import PRECISIONS
from fick.compiler.programs import fused
from fick.compiler.progress import Silent, terminal
from fick.ir.errors import UserError
from fick.ir.files import write_whole
from fick.ir.program import Program
from fick.targets import memory
from fick.targets import profile as profiles
from fick.targets.compiled import Compiled
from fick.targets.lower import lower, planned_calls

TARGETS = ("rpi3-32", "rpi4", "rpi5", "android-arm64", "android-arm32", "adreno", "mali")

HEAD = (
    "model", "target", "code kB", "weights MB", "peak MB", "device MB", "kernels", "calls", "predicted ms",
)  # fmt: skip


def main(
    models: Annotated[list[str], typer.Argument(help="Models, or their configurations' names.")],
    target: Annotated[list[str] | None, typer.Option(help=", ".join(TARGETS))] = None,
    precision: Annotated[str, typer.Option(help="How weights and activations are stored.")] = "float32",
    json_file: JsonFile = None,
) -> None:
    """Print a line for each model and target; exit code 1 where a model cannot be compiled for one."""
    wanted = {name: profiles.load(name) for name in target or TARGETS}
    for name, profile in wanted.items():
        stored = [one for one in PRECISIONS if one in profile.formats]
        if precision not in stored:
            raise typer.BadParameter(f"--precision {precision}: target {name} has {', '.join(stored)}")
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    found, refused = list[dict[str, Any]](), False
    for model in models:
        source = open_model(model).main
        program = cache(lambda source=source: fused(source.imported(), precision=precision))
        for name, profile in wanted.items():
            try:
                with terminal() as reporter:
                    figures = known(source, program, profile, precision, reporter)
            except UserError as error:
                print(f"{model} for {name}: {error}", flush=True)
                refused = True
                continue
            found.append({"model": model, "target": name, **figures})
            print("| " + " | ".join(_text(value) for value in found[-1].values()) + " |", flush=True)
            write_json(json_file, found)
    raise typer.Exit(int(refused))


def known(
    source: Source, program: Callable[[], Program], profile: profiles.Target, precision: str, reporter: Silent
) -> dict[str, float]:
    """The figures, from the cache where this code has had them; ``program`` makes the fused program."""
    own = Path(__file__).read_text(encoding="utf-8")
    name = digest({"unet": source}, ["targets", own, profile.model_dump_json(), precision])
    place = cache_folder() / "figures" / f"{name}.json"
    if name and place.is_file():
        return json.loads(place.read_text())
    reporter.stage(f"{source.name} for {profile.name}")
    figures = figures_of(program(), profile, reporter)
    if name:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(figures).encode())
    return figures


def figures_of(program: Program, profile: profiles.Target, reporter: Silent) -> dict[str, float]:
    """Layers do without larger weights that would make them faster where the device has no room for them."""
    folder = cache_folder()
    small = profile.model_copy(update={"enlarge_weights": False})
    if _weights_bytes(program, profile) > profile.memory_bytes:
        profile = small  # seen before anything is compiled
    compiled = lower(program.copy(), profile, folder / "kernels", reporter.update)
    if _peak(compiled) > profile.memory_bytes and profile.enlarge_weights:
        profile = small
        compiled = lower(program.copy(), profile, folder / "kernels", reporter.update)
    parts = {"unet": compiled}
    source = sum(map(len, kernels_source(parts).values()))
    return {
        "code_kb": (len(link(parts, "", folder / "core")) + source) / 1e3,
        "weights_mb": compiled.weights_bytes / 1e6,
        "peak_mb": _peak(compiled) / 1e6,
        "device_mb": profile.memory_bytes / 1e6,
        "kernels": len(compiled.kernels),
        "calls": len(compiled.variants["full"]),
        "predicted_ms": 1e3 * _seconds(program.copy(), profile),
    }


def _weights_bytes(program: Program, profile: profiles.Target) -> int:
    _, buffers = planned_calls(program.copy(), profile)
    return sum(memory.aligned(one.size_bytes) for one in buffers.values() if one.space == "weights")


def _peak(compiled: Compiled) -> int:
    return compiled.weights_bytes + compiled.arena_bytes + compiled.state_bytes + compiled.kept_bytes


def _seconds(program: Program, profile: profiles.Target) -> float:
    """Of the variant that every step runs."""
    calls, buffers = planned_calls(program, profile)
    if isinstance(profile, profiles.GpuProfile):
        return sum(gpu.call_seconds(call, profile) for call in calls["full"])
    assert isinstance(profile, profiles.Profile)
    return sum(predicted.call_seconds(call, buffers, profile) for call in calls["full"])


def _text(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
