"""What models become on boards, phones and GPUs: code, weights, memory, kernels and the time that the profiles predict.

    python benchmarks/targets.py sd-1.5 bk-sdm-tiny [--target rpi5 --target mali] [--precision float32] [--json FILE]

Of one call of the UNet. Nothing runs on a target: the times are rooflines (compiler/costs), from figures of which each
profile says whether they were published or assumed. Kernels that an earlier run has compiled are not compiled again.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from json_file import JsonFile, write_json

from fick.compiler.bundle.link import kernels_source, link
from fick.compiler.cache import cache_folder
from fick.compiler.costs import gpu, predicted
from fick.compiler.frontends import open_model
from fick.compiler.programs import fused
from fick.compiler.progress import terminal
from fick.ir.program import Program
from fick.targets import profile as profiles
from fick.targets.compiled import Compiled
from fick.targets.lower import lower, planned_calls

TARGETS = ("rpi3-32", "rpi4", "rpi5", "android-arm64", "adreno", "mali")


def main(
    models: Annotated[list[str], typer.Argument(help="Models, or their configurations' names.")],
    target: Annotated[list[str] | None, typer.Option(help=", ".join(TARGETS))] = None,
    precision: Annotated[str, typer.Option(help="How weights and activations are stored.")] = "float32",
    json_file: JsonFile = None,
) -> None:
    """Print a line for each model and target."""
    head = (
        "model", "target", "code kB", "weights MB", "peak MB", "device MB", "kernels", "calls", "predicted ms",
    )  # fmt: skip
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    found = list[dict[str, Any]]()
    for model in models:
        program = fused(open_model(model).main.imported(), precision=precision)
        for name in target or TARGETS:
            profile = profiles.load(name)
            with terminal() as reporter:
                reporter.stage(f"{model} for {name}")
                figures = figures_of(program, profile, reporter.update)
            found.append({"model": model, "target": name, **figures})
            print("| " + " | ".join(_text(value) for value in found[-1].values()) + " |", flush=True)
    write_json(json_file, found)


def figures_of(program: Program, profile: profiles.Target, update: Any = None) -> dict[str, float]:
    """Layers do without larger weights that would make them faster where the device has no room for them."""
    folder = cache_folder()
    compiled = lower(program.copy(), profile, folder / "kernels", update)
    if _peak(compiled) > profile.memory_bytes:
        profile = profile.model_copy(update={"enlarge_weights": False})
        compiled = lower(program.copy(), profile, folder / "kernels", update)
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
