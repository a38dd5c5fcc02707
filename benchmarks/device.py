"""fick-run on this machine and, emulated, on Arm: bytes, working sets and pictures of a pipeline.

    python benchmarks/device.py [--model models/emoji-sd] [--targets host,rpi5] [--steps 20] [--recipe FILE]

Every picture is held to that of the host in Python, in units of 255, and every bundle tests its kernels where it runs.
Ends with exit code 1 where a picture in float32 is off by more than one. Working sets are what GNU time says; under an
emulator that includes the emulator's own. Times of emulated runs mean nothing and are not given.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from json_file import JsonFile, write_json
from PIL import Image

import fick
from fick.compiler.cache import cache_folder
from fick.compiler.runner import program
from fick.ir.errors import UserError
from fick.runtime import TextToImage
from fick.targets.profile import load

PROMPT = "google smiley, loudly crying face"
SEED = 7
EMULATORS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
MOST_OFF = 1
"""Of 255, in float32: sums are added up in other orders."""

SHARE = 4
"""Streamed weights get a quarter of what all of them take."""


@dataclass(frozen=True)
class Row:
    target: str
    precision: str
    memory_limit: int
    runner_bytes: int
    bundle_bytes: int
    weight_bytes: int
    working_set_bytes: int
    off_by: int
    seconds: float | None


def measured(command: list[str]) -> tuple[int, float]:
    """The working set in bytes, by GNU time, and seconds."""
    gnu_time = shutil.which("time")
    if gnu_time is None:
        raise UserError("working sets are measured by GNU time; on Debian, apt-get install time")
    with tempfile.NamedTemporaryFile("r") as file:
        started = time.perf_counter()
        measuring = [gnu_time, "-f", "%M", "-o", file.name, *command]
        ran = subprocess.run(measuring, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if ran.returncode:
            raise UserError(ran.stderr.strip())
        return 1024 * int(file.read()), seconds


def main(
    model: Annotated[Path, typer.Option()] = Path("models/emoji-sd"),
    targets: Annotated[str, typer.Option()] = "host,rpi5",
    precisions: Annotated[str, typer.Option()] = "float32",
    steps: Annotated[int, typer.Option()] = 20,
    recipe: Annotated[Path | None, typer.Option(help="Passes, such as those of w8a8.toml.")] = None,
    json_file: JsonFile = None,
) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for precision in precisions.split(","):
            wanted = None
            for target in dict.fromkeys(("host", *targets.split(","))):
                arch = load(target).arch
                bundle = folder / f"{target}-{precision}.fick"
                report = fick.compile(
                    model, target, bundle, precision=precision, recipe=recipe, self_test=True
                )
                if wanted is None:
                    with fick.load(bundle) as opened:
                        assert isinstance(opened, TextToImage)
                        wanted = opened.generate(PROMPT, steps=steps, seed=SEED)
                runner = folder / f"fick-run-{arch}"
                runner.write_bytes(program(arch, cache_folder() / "core"))
                runner.chmod(0o755)
                native = arch == platform.machine()
                command = [] if native else [EMULATORS[arch]]
                measured([*command, str(runner), str(bundle), "--self-test"])
                least = report.weight_bytes // SHARE + report.arena_bytes + report.state_bytes
                for limit in (0, least):
                    limited = ["--memory-limit", str(limit)] if limit else []
                    drawing = ["--prompt", PROMPT, "--steps", str(steps), "--seed", str(SEED), "-o"]
                    picture = folder / "x.png"
                    used, seconds = measured(
                        [*command, str(runner), str(bundle), *limited, *drawing, str(picture)]
                    )
                    with Image.open(picture) as image:
                        off = int(np.abs(np.asarray(image).astype(int) - wanted.astype(int)).max())
                    sizes = (runner.stat().st_size, bundle.stat().st_size, report.weight_bytes)
                    row = Row(target, precision, limit, *sizes, used, off, seconds if native else None)
                    rows.append(row)
                    print(
                        f"{target} {precision}, limit {limit / 1e6:.1f} MB: runner {row.runner_bytes / 1e3:.0f} KB, "
                        f"weights {row.weight_bytes / 1e6:.1f} MB, working set {row.working_set_bytes / 1e6:.1f} MB, "
                        f"off by {off} of 255" + (f", {seconds:.1f} s" if native else "")
                    )
    write_json(json_file, [asdict(row) for row in rows])
    if recipe is None and any(row.off_by > MOST_OFF for row in rows if row.precision == "float32"):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
