"""What models become on GPUs: kernels, source, weights, memory and the time that the profiles' figures predict.

    python benchmarks/opencl.py sd-1.5 bk-sdm-tiny --target adreno --target mali --precision float16

Nothing runs on a GPU: the times are rooflines (compiler/costs/gpu.py), of one call of the UNet.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from json_file import JsonFile, write_json

from fick.compiler.costs.gpu import costs
from fick.compiler.frontends import open_model
from fick.compiler.programs import fused
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.store import Store, StoreConfig
from fick.targets import profile as profiles
from fick.targets.lower import lower, planned_calls


def main(
    models: Annotated[list[str], typer.Argument(help="Models, or their configurations' names.")],
    target: Annotated[list[str] | None, typer.Option(help="Profiles of GPUs; adreno and mali.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32 and float16.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Print a line for each model, target and precision."""
    head = ("model", "target", "precision", "kernels", "calls", "source kB", "weights MB", "peak MB", "ms")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    found = list[dict[str, Any]]()
    for model in models:
        program = fused(open_model(model).main.imported())
        for stored in precision or ["float32", "float16"]:
            for name in target or ["adreno", "mali"]:
                profile = profiles.load(name)
                if not isinstance(profile, profiles.GpuProfile):
                    raise UserError(f"target {name!r} is no GPU; name one, such as adreno")
                figures = figures_of(program.copy(), profile, stored)
                found.append({"model": model, "target": name, "precision": stored, **figures})
                print("| " + " | ".join(_text(value) for value in found[-1].values()) + " |", flush=True)
    write_json(json_file, found)


def figures_of(program: Program, profile: profiles.GpuProfile, precision: str) -> dict[str, float]:
    """Of the variant that every step runs, and of the memory that a run takes."""
    if precision != "float32":
        program = apply([Store(StoreConfig(format=precision))], program, Context())  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as scratch:
        compiled = lower(program, profile, Path(scratch))
    calls = planned_calls(program, profile)[0]["full"]
    peak = compiled.weights_bytes + compiled.arena_bytes + compiled.state_bytes + compiled.kept_bytes
    return {
        "kernels": len(compiled.kernels),
        "calls": len(calls),
        "source_kb": sum(map(len, compiled.kernels.values())) / 1e3,
        "weights_mb": compiled.weights_bytes / 1e6,
        "peak_mb": peak / 1e6,
        "predicted_ms": 1e3 * sum(one.seconds for one in costs(calls, profile)),
    }


def _text(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
